/* SPDX-License-Identifier: MIT */
/* The descriptor of a vmdk image: a text that names its type, its parent and its extents. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/vmdk.h"

/* The value of a line KEY=VALUE or KEY = "VALUE" in @out; false: another key. */
static bool value_of(const char *line, const char *key, char *out, size_t n)
{
    size_t k = strlen(key);
    if (strncasecmp(line, key, k))
        return false;
    line += k;
    line += strspn(line, " \t");
    if (*line++ != '=')
        return false;
    line += strspn(line, " \t\"");
    snprintf(out, n, "%.*s", (int)strcspn(line, "\"\r"), line);
    return true;
}

/* A file beside the image: an image that comes from somebody else must not name just any file of the host. */
static bool name_ok(const char *name) { return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, ".."); }

struct vmdk_extent *vmdk_extent_add(struct vmdk *s, enum vmdk_kind kind, uint64_t sectors, struct err *e)
{
    uint64_t start = s->n ? s->v[s->n - 1].start + s->v[s->n - 1].sectors : 0;
    if (s->n >= VMDK_MAX_EXTENTS || !sectors || sectors > INT64_MAX / 512 - start) {
        fmt_bad(&s->fmt, e, "an extent of %llu sectors, or more than %d extents", (unsigned long long)sectors, VMDK_MAX_EXTENTS);
        return NULL;
    }
    struct vmdk_extent *v = realloc(s->v, (s->n + 1) * sizeof *v);
    if (!v) {
        err_os(e, ENOMEM, "no memory for %u extents", s->n + 1);
        return NULL;
    }
    s->v = v;
    v += s->n++;
    memset(v, 0, sizeof *v);
    v->kind = kind;
    v->start = start;
    v->sectors = sectors;
    return v;
}

/* RW 4192256 SPARSE "name.vmdk" [OFFSET] */
static bool parse_extent(struct vmdk *s, const char *line, struct err *e)
{
    char access[16], type[16], name[VMDK_MAX_NAME + 1] = "";
    unsigned long long sectors, off = 0;
    int n = sscanf(line, "%15s %llu %15s \"%255[^\"\n\r]\" %llu", access, &sectors, type, name, &off);
    if (n < 3)
        return fmt_bad(&s->fmt, e, "the extent '%.100s'", line);
    bool zero = !strcmp(type, "ZERO"), flat = !strcmp(type, "FLAT") || !strcmp(type, "VMFS"), sparse = !strcmp(type, "SPARSE");
    if (!strcmp(access, "NOACCESS") || (!zero && !flat && !sparse))
        return fmt_unsupported(&s->fmt, e, "has an extent of type '%s', which is not read here", strcmp(access, "NOACCESS") ? type : access);
    if (off > INT64_MAX / 512 || (sparse && off))
        return fmt_bad(&s->fmt, e, "the extent '%.100s'", line);
    struct vmdk_extent *x = vmdk_extent_add(s, zero ? VMDK_ZERO : flat ? VMDK_FLAT : VMDK_SPARSE, sectors, e);
    if (!x || zero)
        return x != NULL;
    if (n < 4 || !name_ok(name)) {
        fmt_unsupported(&s->fmt, e, "has an extent '%.100s' that is no file beside it", name);
        return err_hint(e, "only names without folders are followed, so that an image cannot reach other files of the host");
    }
    x->flat_off = off * 512;
    x->name = xstrdup(name);
    return true;
}

static bool parse_line(struct vmdk *s, char *line, bool embedded, struct err *e)
{
    char value[1024];
    if (!strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) || !strncmp(line, "NOACCESS ", 9))
        return embedded || parse_extent(s, line, e);
    if (value_of(line, "createType", value, sizeof value))
        snprintf(s->create_type, sizeof s->create_type, "%.63s", value);
    else if (value_of(line, "CID", value, sizeof value))
        s->cid = (uint32_t)strtoul(value, NULL, 16);
    else if (value_of(line, "parentCID", value, sizeof value))
        s->parent_cid = (uint32_t)strtoul(value, NULL, 16);
    else if (value_of(line, "parentFileNameHint", value, sizeof value) && *value) {
        free(s->fmt.node.backing_name);
        free(s->fmt.node.backing_fmt);
        s->fmt.node.backing_name = xstrdup(value);
        s->fmt.node.backing_fmt = xstrdup("vmdk");
    }
    return true;
}

bool vmdk_parse(struct vmdk *s, char *text, bool embedded, struct err *e)
{
    char *save;
    s->parent_cid = UINT32_MAX;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        line += strspn(line, " \t");
        if (*line != '#' && !parse_line(s, line, embedded, e))
            return false;
    }
    if (s->parent_cid == UINT32_MAX) {      /* no parent, whatever its name says */
        free(s->fmt.node.backing_name);
        free(s->fmt.node.backing_fmt);
        s->fmt.node.backing_name = s->fmt.node.backing_fmt = NULL;
    }
    return s->n || fmt_bad(&s->fmt, e, "its descriptor names no extent");
}
