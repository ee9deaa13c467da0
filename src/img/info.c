/* SPDX-License-Identifier: MIT */
/* info, map, check, snapshot: what is in an image. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "block/backing.h"
#include "img/img.h"

/* ---- info ---- */

static void print_snapshots(const struct blk_snap *v, unsigned n)
{
    printf("Snapshot list:\nID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n");
    for (unsigned i = 0; i < n; i++) {
        char size[32], date[32];
        time_t t = (time_t)v[i].sec;
        uint64_t s = v[i].vm_clock / 1000000000;
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", localtime(&t));
        printf("%-9s %-16s %8s %19s %02u:%02u:%02u.%03u          0\n", v[i].id, v[i].name, img_size_text(v[i].vm_size, size),
               date, (unsigned)(s / 3600), (unsigned)(s / 60 % 60), (unsigned)(s % 60), (unsigned)(v[i].vm_clock / 1000000 % 1000));
    }
}

/* @key and its value, with @depth levels of four blanks; what it holds below it, as QEMU writes it. */
static void print_value(const char *key, json_t *v, int depth)
{
    char name[64];
    const char *k;
    json_t *part;
    size_t i;
    if (json_is_null(v))
        return;
    snprintf(name, sizeof name, "%s", key);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? ' ' : *c;
    printf("%*s%s:", depth * 4, "", name);
    if (json_is_string(v))
        printf(" %s", json_string_value(v));
    else if (json_is_boolean(v))
        printf(" %s", json_is_true(v) ? "true" : "false");
    else if (json_is_integer(v))
        printf(" %lld", (long long)json_integer_value(v));
    putchar('\n');
    json_object_foreach(v, k, part)
        print_value(k, part, depth + 1);
    json_array_foreach(v, i, part) {
        snprintf(name, sizeof name, "[%zu]", i);
        print_value(name, part, depth + 1);
    }
}

static void print_info(struct blk_node *n, json_t *o)
{
    char size[32];
    const char *key;
    json_t *v;
    uint64_t bytes = atomic_load(&n->size);
    printf("image: %s\nfile format: %s\n", json_string_value(json_object_get(o, "filename")), img_format(n));
    printf("virtual size: %s (%llu bytes)\n", img_size_text(bytes, size), (unsigned long long)bytes);
    if ((v = json_object_get(o, "actual-size")))
        printf("disk size: %s\n", img_size_text((uint64_t)json_integer_value(v), size));
    if ((v = json_object_get(o, "cluster-size")))
        printf("cluster_size: %lld\n", (long long)json_integer_value(v));
    if ((v = json_object_get(o, "backing-filename"))) {
        const char *full = json_string_value(json_object_get(o, "full-backing-filename"));
        printf("backing file: %s", json_string_value(v));
        printf(strcmp(full, json_string_value(v)) ? " (actual path: %s)\n" : "\n", full);
    }
    if ((v = json_object_get(o, "backing-filename-format")))
        printf("backing file format: %s\n", json_string_value(v));
    struct blk_snap *snaps = NULL;
    unsigned count = 0;
    if (BLK_DRIVER(n)->snap && !BLK_DRIVER(n)->snap->list(n, &snaps, &count) && count)
        print_snapshots(snaps, count);
    blk_snaps_free(snaps, count);
    json_t *spec = json_object_get(json_object_get(o, "format-specific"), "data");
    if (!spec)
        return;
    puts("Format specific information:");
    json_object_foreach(spec, key, v)
        print_value(key, v, 1);
}

/* The chain has come to an image again that is in @seen, or has no end that could be told from one. */
static bool is_loop(json_t *seen, const char *name, unsigned depth)
{
    const char *path = blk_local_path(name);
    struct stat st;
    bool local = path && !stat(path, &st);
    char *key = local ? xasprintf("%llx:%llx", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino) : xstrdup(name);
    bool loop = json_object_get(seen, key) || depth > BLK_CHAIN_MAX;
    json_object_set_new(seen, key, json_true());
    free(key);
    if (loop)
        fprintf(stderr, "backplane-img: '%s' is its own backing file, or one of a loop of them\n", name);
    return loop;
}

/* How much the file below occupies, where the server of it has to be asked; monitors do not wait for that. */
static void co_add_usage(struct blk_node *n, json_t *info)
{
    while (n->child.node)
        n = n->child.node;
    int64_t used = BLK_DRIVER(n)->co_allocated ? BLK_DRIVER(n)->co_allocated(n) : -1;
    if (used >= 0)
        json_object_set_new(info, "actual-size", json_integer(used));
}

/* Options in place of a name say which file it is; with a filter between, that file is not what is shown, and they stay. */
static const char *shown_name(const struct blk_node *n, const char *name, bool is_opts)
{
    for (const struct blk_node *l = n; l && is_opts; l = l->child.node)
        is_opts = !(BLK_DRIVER(l)->flags & BLK_FILTER);
    const char *file = is_opts ? blk_node_filename(n) : "";
    return *file ? file : name;
}

static const struct img_opt info_opts[] = {
    IMG_OPT_FORMAT,
    { OPT_CHAIN, "backing-chain", NULL, "of the images that it lies over, too" },
    IMG_OPT_OUTPUT,
    IMG_OPT_SHARE,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_info(int argc, char **argv)
{
    struct img_opts o = { 0 };
    bool chain = false;
    for (int c; (c = img_getopt(argc, argv, info_opts, &o)) != -1;) {
        if (c == OPT_CHAIN)
            chain = true;
        else
            return 1;
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "backplane-img: info needs one file name\n");
        return 1;
    }
    json_t *list = json_array(), *seen = json_object();
    char *name = xstrdup(argv[optind]), *fmt = o.fmt ? xstrdup(o.fmt) : NULL;
    int status = 0;
    for (unsigned depth = 0; name; depth++) {
        if (is_loop(seen, name, depth)) {
            status = 1;
            break;
        }
        struct img_opts here = o;
        here.image_opts &= !depth;
        struct blk_node *n = img_open(name, fmt, NULL, &here, IMG_LOOK | IMG_UNLOCKED);
        if (!n) {
            status = 1;
            break;
        }
        json_t *j = blk_image_info(n, shown_name(n, name, here.image_opts || str_starts(name, "json:")));
        co_add_usage(n, j);
        if (!img_is_json(&o)) {
            if (depth)
                putchar('\n');
            print_info(n, j);
        }
        json_array_append_new(list, j);
        free(name);
        free(fmt);
        name = chain && n->backing_name ? blk_path_beside(blk_node_filename(n), n->backing_name) : NULL;
        fmt = name && n->backing_fmt ? xstrdup(n->backing_fmt) : NULL;
        img_close(n);
    }
    free(name);
    free(fmt);
    json_decref(seen);
    if (img_is_json(&o) && !status)
        img_print_json(json_incref(chain ? list : json_array_get(list, 0)));
    json_decref(list);
    return status;
}
IMG_CMD(co_info, "info", info_opts, "FILE", "Tells what an image is; needs no lock");

/* ---- map ---- */

struct span { uint64_t start, len; struct blk_extent x; };

/* False: what it is cannot be told in that form. */
static bool print_span(const struct span *s, bool json, bool first)
{
    const struct blk_extent *x = &s->x;
    if (!json && x->data && !x->zero && !x->has_off) {
        fprintf(stderr, "backplane-img: the image has compressed, encrypted or other data that is nowhere as it is read\nhint: --output=json tells of all\n");
            return false;
    }
    if (!json) {
        if (x->data && !x->zero)
            printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)s->start, (unsigned long long)s->len, (unsigned long long)x->off,
                   x->where ? blk_node_filename(x->where) : "");
        return true;
    }
    printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s%s", first ? "[" : ",\n",
           (unsigned long long)s->start, (unsigned long long)s->len, x->depth, x->below ? "false" : "true", x->zero ? "true" : "false",
           x->data ? "true" : "false", x->compressed ? ", \"compressed\": true" : "");
    if (x->has_off)
        printf(", \"offset\": %llu", (unsigned long long)x->off);
    printf("}");
    return true;
}

static bool joins(const struct span *a, const struct blk_extent *x)
{
    const struct blk_extent *y = &a->x;
    return y->depth == x->depth && y->below == x->below && y->zero == x->zero && y->data == x->data && y->compressed == x->compressed &&
           y->has_off == x->has_off && (!x->has_off || (y->off + a->len == x->off && y->where == x->where));
}

static const struct img_opt map_opts[] = {
    IMG_OPT_FORMAT,
    { 's', "start-offset", "SIZE", "from here" },
    { 'l', "max-length", "SIZE", "so far" },
    IMG_OPT_OUTPUT,
    IMG_OPT_SHARE,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_map(int argc, char **argv)
{
    struct img_opts o = { 0 };
    uint64_t start = 0, max = INT64_MAX;
    for (int c; (c = img_getopt(argc, argv, map_opts, &o)) != -1;)
        if (c == 's' ? !img_size(optarg, &start) : c == 'l' ? !img_size(optarg, &max) : true)
            return 1;
    struct blk_node *n = optind + 1 == argc ? img_open(argv[optind], o.fmt, NULL, &o, 0) : NULL;
    if (!n)
        return 1;
    uint64_t size = atomic_load(&n->size), end = start > size ? start : MIN(size, start + MIN(max, size));
    struct span s = { 0 };
    bool first = true, ok = true;
    int r = 0;
    if (!img_is_json(&o))
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    if (start >= end && img_is_json(&o)) {          /* what QEMU's tool says of nothing */
        s = (struct span){ .start = start, .x.below = true };
        ok = print_span(&s, true, true);
    }
    for (uint64_t at = start; at < end && ok;) {
        struct blk_extent x;
        r = co_node_map(n, at, end - at, &x);
        if (r)
            break;
        if (s.len && joins(&s, &x)) {
            s.len += x.len;
        } else {
            if (s.len) {
                ok = print_span(&s, img_is_json(&o), first);
                first = false;
            }
            s = (struct span){ at, x.len, x };
        }
        at += x.len;
    }
    if (s.len && ok)
        ok = print_span(&s, img_is_json(&o), first);
    if (img_is_json(&o))
        puts("]");
    img_close(n);
    return r ? img_fail_errno(r, "cannot read the map of '%s'", argv[optind]) : !ok;
}
IMG_CMD(co_map, "map", map_opts, "FILE", "Tells where the data of an image is");

/* ---- check ---- */

static void say(void *quiet, const char *line)
{
    if (!*(bool *)quiet)
        fprintf(stderr, "%s\n", line);
}

static void check_json(const struct blk_check *c, const char *name, const struct blk_node *n)
{
    json_t *o = json_pack("{s:I, s:I, s:I, s:s, s:s}", "image-end-offset", (json_int_t)c->end, "total-clusters", (json_int_t)c->total,
                          "check-errors", (json_int_t)c->errors, "filename", name, "format", img_format(n));
    const struct { const char *key; uint64_t v; } rows[] = {
        { "allocated-clusters", c->allocated }, { "fragmented-clusters", c->fragmented }, { "compressed-clusters", c->compressed },
        { "leaks", c->leaks }, { "corruptions", c->corruptions }, { "leaks-fixed", c->leaks_fixed },
        { "corruptions-fixed", c->corruptions_fixed },
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].v)
            json_object_set_new(o, rows[i].key, json_integer((json_int_t)rows[i].v));
    img_print_json(o);
}

static void check_text(const struct blk_check *c)
{
    if (c->leaks_fixed || c->corruptions_fixed)
        printf("The following inconsistencies were found and repaired:\n\n    %llu leaked clusters\n    %llu corruptions\n\n"
               "Double checking the fixed image now...\n", (unsigned long long)c->leaks_fixed, (unsigned long long)c->corruptions_fixed);
    if (!c->leaks && !c->corruptions)
        puts("No errors were found on the image.");
    if (c->corruptions)
        printf("\n%llu errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n",
               (unsigned long long)c->corruptions);
    if (c->leaks)
        printf("\n%llu leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
               (unsigned long long)c->leaks);
    if (c->total && c->allocated)
        printf("%llu/%llu = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n", (unsigned long long)c->allocated,
               (unsigned long long)c->total, (double)c->allocated * 100 / (double)c->total,
               (double)c->fragmented * 100 / (double)c->allocated, (double)c->compressed * 100 / (double)c->allocated);
    if (c->end)
        printf("Image end offset: %llu\n", (unsigned long long)c->end);
}

static const struct img_opt check_opts[] = {
    IMG_OPT_FORMAT,
    { 'r', "repair", "leaks|all", "mends what is found" },
    { 'T', "cache", "MODE", "the host's cache: writeback or none" },
    IMG_OPT_OUTPUT,
    IMG_OPT_SHARE,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_check(int argc, char **argv)
{
    struct img_opts o = { 0 };
    unsigned fix = 0;
    for (int c; (c = img_getopt(argc, argv, check_opts, &o)) != -1;) {
        if (c == 'r' && !strcmp(optarg, "leaks"))
            fix = BLK_FIX_LEAKS;
        else if (c == 'r' && !strcmp(optarg, "all"))
            fix = BLK_FIX_LEAKS | BLK_FIX_ERRORS;
        else
            return c == 'r' ? img_refuse("-r is 'leaks' or 'all'") : 1;
    }
    if (optind + 1 != argc)
        return fprintf(stderr, "backplane-img: check needs one file name\n"), 1;
    struct blk_node *n = img_open(argv[optind], o.fmt, o.src_cache, &o, IMG_LOOK | IMG_REPAIR | (fix ? IMG_WRITE : IMG_BUSY));
    if (!n)
        return 1;
    bool quiet = o.quiet || img_is_json(&o);
    struct blk_check c = { .say = say, .arg = &quiet };
    int status = 0, r = BLK_DRIVER(n)->co_check ? BLK_DRIVER(n)->co_check(n, &c, fix) : -ENOTSUP;
    if (r == -ENOTSUP) {
        fprintf(stderr, "backplane-img: images of format '%s' cannot be checked: there is nothing in them but data\n", img_format(n));
        status = 63;
    } else if (r) {
        status = img_fail_errno(r, "the check of '%s' could not be finished", argv[optind]);
    } else {
        if (!o.quiet && img_is_json(&o))
            check_json(&c, argv[optind], n);
        else if (!o.quiet)
            check_text(&c);
        status = c.corruptions ? 2 : c.leaks ? 3 : 0;
    }
    img_close(n);
    return status;
}
IMG_CMD(co_check, "check", check_opts, "FILE", "Checks an image; status 0: clean, 1: not checked, 2: errors, 3: leaks");

/* ---- snapshots ---- */

/* What is in all snapshots is counted once for each. */
static int too_narrow(struct blk_node *n)
{
    struct err e = ERR_INIT;
    err_set(&e, ERR_VALUE, "the refcounts of '%s' are too narrow to count one more snapshot", blk_node_filename(n));
    err_hint(&e, "backplane-img amend -o refcount_bits=16 widens them");
    return img_fail(&e, NULL);
}

static int do_snapshot(struct blk_node *n, char op, const char *what)
{
    const struct blk_snap_ops *s = BLK_DRIVER(n)->snap;
    struct blk_snap *v = NULL, info = { .name = (char *)what };
    struct timespec now;
    unsigned count;
    if (!s)
        return fprintf(stderr, "backplane-img: images of format '%s' hold no snapshots\n", img_format(n)), 1;
    int r = 0;
    switch (op) {
    case 'l':
        r = s->list(n, &v, &count);
        if (!r && count)
            print_snapshots(v, count);
        blk_snaps_free(v, r ? 0 : count);
        break;
    case 'c':
        clock_gettime(CLOCK_REALTIME, &now);
        info.sec = (uint64_t)now.tv_sec;
        info.nsec = (uint64_t)now.tv_nsec;
        r = s->create(n, &info);
        break;
    case 'a': r = s->apply(n, what); break;
    case 'd': r = s->del(n, what); break;
    }
    return r == -ENOENT ? (fprintf(stderr, "backplane-img: there is no snapshot '%s'\n", what), 1)
         : r == -EOVERFLOW && op == 'c' ? too_narrow(n)
         : r ? img_fail_errno(r, "snapshot '%s' of '%s'", what ? what : "", blk_node_filename(n)) : 0;
}

static const struct img_opt snapshot_opts[] = {
    { 'l', "list", NULL, "lists them (this is what is done if nothing else is asked for)" },
    { 'a', "apply", "SNAPSHOT", "the disk becomes what it was" },
    { 'c', "create", "NAME", "keeps what the disk is now" },
    { 'd', "delete", "SNAPSHOT", "deletes one" },
    IMG_OPT_FORMAT,
    IMG_OPT_SHARE,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_snapshot(int argc, char **argv)
{
    struct img_opts o = { 0 };
    char op = 0;
    const char *what = NULL;
    for (int c; (c = img_getopt(argc, argv, snapshot_opts, &o)) != -1;) {
        if (c != 'l' && c != 'a' && c != 'c' && c != 'd')
            return 1;
        if (op)
            return img_refuse("snapshot takes one of -l, -a, -c and -d");
        op = (char)c;
        what = optarg;
    }
    op = op ? op : 'l';
    if (optind + 1 != argc)
        return fprintf(stderr, "backplane-img: snapshot needs one file name\n"), 1;
    struct blk_node *n = img_open(argv[optind], o.fmt, o.cache, &o, op == 'l' ? IMG_LOOK | IMG_UNLOCKED : IMG_WRITE | IMG_ONE_LAYER | IMG_GUESSED);
    if (!n)
        return 1;
    int status = do_snapshot(n, op, what);
    img_close(n);
    return status;
}
IMG_CMD(co_snapshot, "snapshot", snapshot_opts, "FILE", "Lists, applies, creates or deletes snapshots inside an image");
