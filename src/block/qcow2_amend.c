/* SPDX-License-Identifier: MIT */
/* What creation decided, changed later: the version (upwards), the size, lazy refcounts, key slots. */
#include <errno.h>
#include <stdlib.h>
#include "block/qcow2_int.h"

static const char *const compat_names[] = { "same", "1.1", "v3", "0.10", "v2", NULL };
static const char *const formats[] = { "same", "luks", NULL };

struct amend { uint64_t size; int compat, lazy, format; struct luks_amend a; bool any_luks; };
const struct prop q2_amend_props[] = {
    PROP_SIZE(struct amend, size, "size", 0, 0, INT64_MAX - 2 * MiB, "Size of the disk; no less than it has"),
    PROP_ENUM(struct amend, compat, "compat", compat_names, 0, "Version of the format: 1.1 (v3); there is no way back to 0.10"),
    PROP_TRI(struct amend, lazy, "lazy_refcounts", TRI_AUTO, "Other programs may postpone refcount updates"),
    PROP_ENUM(struct amend, format, "encrypt.format", formats, 0, "How it is encrypted already"),
    LUKS_AMEND_PROPS(struct amend, a, "encrypt."),
    PROP_END,
};

/* Fields that version 2 does not have get the values that it means. */
static int co_to_v3(struct qcow2 *s)
{
    s->version = 3;
    s->header_len = Q2_H_OUR_LEN;
    s->incompat = s->compat = s->autoclear = 0;
    return co_q2_header_write(s);
}

static bool check(const struct qcow2 *s, const struct amend *a, struct err *e)
{
    if (a->compat >= 3 && s->version >= 3) {
        err_set(e, ERR_VALUE, "compat=0.10: an image of version 3 stays one");
        return err_hint(e, "backplane-img convert -O qcow2 -o compat=0.10 makes another one");
    }
    if (a->lazy == TRI_ON && s->version < 3 && (a->compat == 0 || a->compat >= 3))
        return err_set(e, ERR_VALUE, "lazy_refcounts=on needs compat=1.1");
    if ((a->any_luks || a->format) && !s->luks)
        return err_set(e, ERR_VALUE, "encrypt.* has no effect: the image is not encrypted");
    if (a->size && a->size < q2_size(s)) {
        err_set(e, ERR_VALUE, "size: the image has %llu bytes already", (unsigned long long)q2_size(s));
        return err_hint(e, "resize --shrink");
    }
    return true;
}

static bool co_apply(struct qcow2 *s, const struct amend *a, bool force, struct err *e)
{
    struct luks_io io = q2_luks_io(s);
    int r = 0;
    if ((a->compat == 1 || a->compat == 2) && s->version < 3)
        r = co_to_v3(s);
    if (!r && a->lazy != TRI_AUTO && s->version >= 3) {
        s->compat = a->lazy == TRI_ON ? s->compat | Q2_COMPAT_LAZY : s->compat & ~(uint64_t)Q2_COMPAT_LAZY;
        r = co_q2_header_write(s);
    }
    if (!r && a->size > q2_size(s))
        r = co_node_resize(&s->node, a->size);
    if (r)
        return err_os(e, -r, "cannot amend '%s'", blk_node_filename(&s->node));
    return !a->any_luks || co_luks_amend(s->luks, &io, &a->a, force, e);
}

bool co_q2_amend(struct blk_node *n, json_t *opts, bool force, struct err *e)
{
    struct qcow2 *s = q2_of(n);
    struct amend a = { 0 };
    const char *key;
    json_t *v;
    prop_defaults(q2_amend_props, &a);
    bool ok = prop_set_all(q2_amend_props, &a, NULL, opts, "amending qcow2 images", e);
    json_object_foreach(opts, key, v)
        a.any_luks |= str_starts(key, "encrypt.") && !str_eq(key, "encrypt.format");
    ok = ok && check(s, &a, e);
    if (ok) {
        co_q2_lock_all(s);
        ok = co_q2_sync(s) == 0 || err_set(e, ERR_GENERIC, "cannot write the tables of '%s'", blk_node_filename(n));
        q2_unlock_all(s);
        ok = ok && co_apply(s, &a, force, e);
    }
    prop_release(q2_amend_props, &a);
    return ok;
}
