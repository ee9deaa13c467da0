/* SPDX-License-Identifier: MIT */
/* blockdev-create and x-blockdev-amend: images made and changed in nodes that are there, as jobs. They stay until they are dismissed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/backing.h"
#include "block/blk_int.h"
#include "block/job.h"
#include "core/backend.h"
#include "core/cmd.h"

struct making {
    struct job job;
    const struct blk_driver *d;
    json_t *opts;                   /* of the driver, as backplane-img has them */
    json_t *file, *data;            /* create: the nodes' names or options, as given; NULL: there are none */
    struct blk_node *n;             /* amend; a reference */
    bool force;
};

/* QMP's "cluster-size" is the "cluster_size" of command lines; some have other names. */
static json_t *own_names(json_t *opts, const struct prop *rows)
{
    json_t *flat = opt_flatten(opts), *out = json_object(), *v;
    const char *key;
    json_object_foreach(flat, key, v) {
        struct prop p;
        char *name = xstrdup(str_eq(key, "version") ? "compat" : key);
        if (!prop_find(rows, name, &p))
            for (char *c = name; *c; c++)
                *c = *c == '-' ? '_' : *c;
        if (str_eq(key, "preallocation") && prop_find(rows, "static", &p) && !prop_find(rows, key, &p))     /* vdi */
            json_object_set_new(out, "static", json_boolean(!str_eq(json_string_value(v), "off")));
        else
            json_object_set(out, prop_find(rows, name, &p) ? name : key, v);
        free(name);
    }
    json_decref(flat);
    return out;
}

static void co_clean(struct job *j)
{
    struct making *m = (struct making *)j;
    json_decref(m->opts);
    json_decref(m->file);
    json_decref(m->data);
    if (m->n)
        obj_unref(&m->n->obj);
}

/* ---- create ---- */

/* A node that is there, or one for as long as this takes. */
static struct blk_node *find_node(struct making *m, json_t *ref, const char *role, bool *own, struct err *e)
{
    *own = json_is_object(ref);
    if (json_is_string(ref))
        return (struct blk_node *)obj_lookup(&blk_node_class, json_string_value(ref), e);
    if (!*own)
        return err_set(e, ERR_VALUE, "'%s' must name a block node or hold the options of one", role), NULL;
    json_t *o = json_copy(ref);
    if (!json_object_get(o, "node-name"))
        json_object_set_new(o, "node-name", json_sprintf("creating-%s-%p", role, (void *)m));
    struct blk_node *n = blk_node_create(o, e);
    json_decref(o);
    return n;
}

/* Nobody else uses it; it is as large as is asked for. */
static bool co_take_over(struct blk_node *n, uint64_t size, struct err *e)
{
    struct blk_use use = { 0 };
    if (!blk_use_add(&use, n, BLK_PERM_ALL, 0, "the creation of an image", e))
        return false;
    int r = co_node_resize(n, size);
    blk_use_del(&use);
    return r == -ENOTSUP || !r || err_os(e, -r, "cannot set the size of '%s'", blk_node_filename(n));
}

static bool co_make_format(struct making *m, struct err *e)
{
    bool own = false, own_data = false;
    struct blk_node *data = NULL, *file = find_node(m, m->file, "file", &own, e);
    bool ok = file && co_take_over(file, 0, e);
    if (ok && m->data) {
        uint64_t size = (uint64_t)json_integer_value(json_object_get(m->opts, "size"));
        data = find_node(m, m->data, "data-file", &own_data, e);
        ok = data && co_take_over(data, size, e);
        if (ok)
            json_object_set_new(m->opts, "data_file", json_string(blk_node_filename(data)));
    }
    ok = ok && m->d->co_create(file, m->opts, e);
    if (data && own_data)
        obj_del(&data->obj);
    if (file && own)
        obj_del(&file->obj);
    return ok;
}

static bool co_make_file(struct making *m, struct err *e)
{
    static const char *const keys[][2] = { { "size", "size" }, { "preallocation", "preallocation" }, { "nocow", "nocow" }, { "extent-size-hint", "extent_size_hint" } };
    json_t *raw = json_object();
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        json_object_set(raw, keys[i][1], json_object_get(m->opts, keys[i][0]));
    bool ok = blk_image_create(json_string_value(json_object_get(m->opts, "filename")), "raw", raw, true, e);
    json_decref(raw);
    return ok;
}

static int co_create_run(struct job *j)
{
    struct making *m = (struct making *)j;
    bool ok = m->file ? co_make_format(m, &j->err) : co_make_file(m, &j->err);
    job_progress(j, 1);
    return ok ? 0 : -EINVAL;
}

static const struct job_ops create_ops = { .type = "create", .size = sizeof(struct making), .co_run = co_create_run, .co_clean = co_clean };

struct args { char *job_id, *node_name; json_t *options; bool force; };
static const struct prop create_args[] = {
    PROP_STR(struct args, job_id, "job-id", PF_REQUIRED, "Name of the job"),
    PROP_JSON(struct args, options, "options", PF_REQUIRED, "driver, file (a node's name or options), size, and options of the format; of driver file: filename, size"),
    PROP_END,
};

static const struct blk_driver *driver_of(json_t *options, struct err *e)
{
    const char *name = json_string_value(json_object_get(options, "driver"));
    if (!name)
        return err_set(e, ERR_VALUE, "Parameter 'driver' is missing"), NULL;
    return (const struct blk_driver *)backend_find(&blk_node_class, name, e);
}

static struct making *making_new(const struct job_ops *ops, const struct args *a, const struct blk_driver *d, json_t *opts, struct err *e)
{
    struct job_opts o = { .id = a->job_id, .auto_finalize = true, .auto_dismiss = false };
    struct making *m = (struct making *)job_new(ops, &o, NULL, NULL, e);
    if (!m) {
        json_decref(opts);
        return NULL;
    }
    m->d = d;
    m->opts = opts;
    m->job.total = 1;
    return m;
}

/* What the job could only fail for later. */
static bool check_create(const struct blk_driver *d, json_t *opts, struct err *e)
{
    static const char *const file_keys[] = { "driver", "filename", "size", "preallocation", "nocow", "extent-size-hint" };
    const char *name = json_string_value(json_object_get(opts, "driver")), *key;
    bool is_file = str_eq(name, "file"), known;
    json_t *v;
    if (!is_file && (!(d->flags & BLK_FORMAT) || !d->co_create))
        return err_set(e, ERR_VALUE, "Driver '%s' does not support creating images: raw needs none, others are only read", name);
    if (!json_object_get(opts, is_file ? "filename" : "file"))
        return err_set(e, ERR_VALUE, "Parameter '%s' is missing", is_file ? "filename" : "file");
    if (!json_is_integer(json_object_get(opts, "size")) || json_integer_value(json_object_get(opts, "size")) < 0)
        return err_set(e, ERR_VALUE, "Parameter 'size' must be a number of bytes");
    json_object_foreach(opts, key, v) {
        known = !is_file;
        for (size_t i = 0; i < ARRAY_SIZE(file_keys); i++)
            known |= str_eq(key, file_keys[i]);
        if (!known)
            return err_set(e, ERR_UNKNOWN, "Parameter '%s' is unexpected", key);
    }
    return true;
}

static json_t *co_blockdev_create(void *args, struct err *e)
{
    const struct args *a = args;
    const struct blk_driver *d = driver_of(a->options, e);
    if (!d || !check_create(d, a->options, e))
        return NULL;
    json_t *opts = json_copy(a->options), *file = json_incref(json_object_get(opts, "file")), *data = json_incref(json_object_get(opts, "data-file"));
    bool is_format = file != NULL;
    for (size_t i = 0; i < 3 && is_format; i++)
        json_object_del(opts, ((const char *[]){ "driver", "file", "data-file" })[i]);
    json_t *own = is_format ? own_names(opts, d->create_props) : json_incref(opts);
    json_decref(opts);
    if (data)
        json_object_set_new(own, "data-file-exists", json_true());
    struct making *m = making_new(&create_ops, a, d, own, e);
    if (!m) {
        json_decref(file);
        json_decref(data);
        return NULL;
    }
    m->file = file;
    m->data = data;
    job_start(&m->job);
    return json_object();
}

/* ---- amend ---- */

static int co_amend_run(struct job *j)
{
    struct making *m = (struct making *)j;
    bool ok = m->d->co_amend(m->n, m->opts, m->force, &j->err);
    int r = ok ? co_node_flush(m->n) : -EINVAL;
    job_progress(j, 1);
    return r;
}

static const struct job_ops amend_ops = { .type = "amend", .size = sizeof(struct making), .co_run = co_amend_run, .co_clean = co_clean };

static const struct prop amend_args[] = {
    PROP_STR(struct args, job_id, "job-id", PF_REQUIRED, "Name of the job"),
    PROP_STR(struct args, node_name, "node-name", PF_REQUIRED, "Node of the image"),
    PROP_JSON(struct args, options, "options", PF_REQUIRED, "driver, and what is to be otherwise, as backplane-img amend has it"),
    PROP_BOOL(struct args, force, "force", false, "Also what may lose data: the last key slot"),
    PROP_END,
};

static json_t *co_blockdev_amend(void *args, struct err *e)
{
    const struct args *a = args;
    const struct blk_driver *d = driver_of(a->options, e);
    struct blk_node *n = d ? blk_node_find(a->node_name, e) : NULL;
    if (!n)
        return NULL;
    if (BLK_DRIVER(n) != d)
        return err_set(e, ERR_VALUE, "x-blockdev-amend doesn't support changing the block driver"), NULL;
    if (!d->co_amend)
        return err_set(e, ERR_VALUE, "Driver does not support x-blockdev-amend"), NULL;
    if (n->caps.read_only)
        return err_set(e, ERR_VALUE, "block node '%s' is read-only", n->obj.id), NULL;
    json_t *opts = json_copy(a->options);
    json_object_del(opts, "driver");
    json_t *own = own_names(opts, d->amend_props);
    json_decref(opts);
    struct making *m = making_new(&amend_ops, a, d, own, e);
    if (!m)
        return NULL;
    m->n = n;
    m->force = a->force;
    obj_ref(&n->obj);
    if (!job_claim(&m->job, n, 0, BLK_PERM_ALL, e)) {
        co_job_discard(&m->job);
        return NULL;
    }
    job_start(&m->job);
    return json_object();
}

static const struct qmp_cmd cmd_create = { "blockdev-create", "Makes an image in a node, or a file", create_args, sizeof(struct args), co_blockdev_create, .ret = qmp_nothing };
QMP_CMD(&cmd_create);
static const struct qmp_cmd cmd_amend = { "x-blockdev-amend", "Changes what the creation of an image decided", amend_args, sizeof(struct args), co_blockdev_amend, .ret = qmp_nothing };
QMP_CMD(&cmd_amend);
