/* SPDX-License-Identifier: MIT */
/* The options of backplane-img's commands, from their rows: parsing, help; and the values that several of them take. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "base/opt.h"
#include "block/backing.h"
#include "block/throttle.h"
#include "core/backend.h"
#include "core/user_obj.h"
#include "img/img.h"

enum { MAX_ROWS = 48 };

static bool is_letter(int key) { return key < OPT_OUTPUT; }

/* The rows as getopt_long() takes them. */
static void for_getopt(const struct img_opt *rows, char *letters, struct option *longs)
{
    for (size_t i = 0, n = 0; rows[i].key && i < MAX_ROWS; i++) {
        if (is_letter(rows[i].key)) {
            *letters++ = (char)rows[i].key;
            if (rows[i].arg)
                *letters++ = ':';
        }
        if (rows[i].name)
            longs[n++] = (struct option){ rows[i].name, rows[i].arg != NULL, NULL, rows[i].key };
    }
    *letters = 0;
}

static bool make_object(const char *text)
{
    struct err e = ERR_INIT;
    json_t *made = user_object_parse(text, &e);
    bool ok = made && user_object_create(made, &e);
    json_decref(made);
    if (!ok) {
        err_prefix(&e, "--object %s", text);
        img_fail(&e, NULL);
    }
    return ok;
}

int img_getopt(int argc, char **argv, const struct img_opt *rows, struct img_opts *o)
{
    char letters[2 * MAX_ROWS + 1];
    struct option longs[MAX_ROWS + 1] = { 0 };
    for_getopt(rows, letters, longs);
    for (;;) {
        int c = getopt_long(argc, argv, letters, longs, NULL);
        switch (c) {
        case 'f': o->fmt = optarg; break;
        case 't': o->cache = optarg; break;
        case 'T': o->src_cache = optarg; break;
        case 'q': o->quiet = true; break;
        case 'p': o->progress = true; break;
        case 'U': o->unlocked = true; break;
        case OPT_IMAGE_OPTS: o->image_opts = true; break;
        case OPT_FORCE: o->force = true; break;
        case OPT_OBJECT:
            if (!make_object(optarg))
                return '?';
            break;
        case OPT_OUTPUT:
            o->output = optarg;
            if (strcmp(optarg, "json") && strcmp(optarg, "human"))
                return img_refuse("--output is 'human' or 'json'"), '?';
            break;
        default: return c;
        }
    }
}

/* "-f FORMAT" or "--object TYPE"; @both: with the long name beside the letter. */
static void say_option(FILE *out, const struct img_opt *o, bool both)
{
    if (is_letter(o->key))
        fprintf(out, "-%c", o->key);
    if (!is_letter(o->key) || (both && o->name))
        fprintf(out, "%s--%s", is_letter(o->key) ? ", " : "", o->name);
    fprintf(out, "%s%s", o->arg ? " " : "", o->arg ? o->arg : "");
}

void img_usage(FILE *out, const struct img_cmd *c)
{
    fputs(c->name, out);
    for (const struct img_opt *o = c->opts; o->key; o++) {
        if (!o->doc)
            continue;
        fputs(" [", out);
        say_option(out, o, false);
        fputc(']', out);
    }
    fprintf(out, " %s\n", c->operands);
}

void img_help(const struct img_cmd *c)
{
    printf("usage: backplane-img ");
    img_usage(stdout, c);
    printf("%s\n\n", c->doc);
    for (const struct img_opt *o = c->opts; o->key; o++) {
        if (!o->doc)
            continue;
        printf("  ");
        say_option(stdout, o, true);
        printf("\n      %s\n", o->doc);
    }
}

bool img_is_json(const struct img_opts *o) { return o->output && !strcmp(o->output, "json"); }

bool img_size(const char *text, uint64_t *out)
{
    if (parse_size(text, 1, out) && *out <= INT64_MAX)
        return true;
    fprintf(stderr, "backplane-img: '%s' is not a size\n", text);
    return false;
}

bool img_number(const char *option, const char *text, uint64_t lo, uint64_t hi, uint64_t *out)
{
    if (parse_size(text, 1, out) && *out >= lo && *out <= hi)
        return true;
    fprintf(stderr, "backplane-img: %s takes a number from %llu to %llu, not '%s'\n", option, (unsigned long long)lo, (unsigned long long)hi, text);
    return false;
}

bool img_rate(const char *text, struct throttle *out)
{
    if (!img_size(text, &out->lim[TH_BPS].rate))
        return false;
    return out->lim[TH_BPS].rate || (img_refuse("-r: a rate of 0 lets nothing through"), false);
}

bool img_parse_o(const char *text, json_t *opts)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse_flat(text, NULL, &e);
    if (!o) {
        img_fail(&e, "-o");
        return false;
    }
    json_object_update(opts, o);
    json_decref(o);
    return true;
}

static void help_list(const struct prop *rows)
{
    struct prop p;
    for (size_t i = 0; prop_nth(rows, i, &p); i++) {
        struct str type = { 0 };
        prop_describe_type(&p, &type);
        printf("  %s=<%s> - %s\n", p.name, type.s ? type.s : "", p.doc);
        str_free(&type);
    }
}

int img_help_o(const char *fmt)
{
    struct err e = ERR_INIT;
    const struct obj_class *c = backend_find(&blk_node_class, fmt, &e);
    if (!c)
        return img_fail(&e, NULL);
    img_help_rows(fmt, ((const struct blk_driver *)c)->create_props);
    puts("Those of its file:");
    help_list(blk_file_create_props);
    return 0;
}

void img_help_rows(const char *fmt, const struct prop *rows)
{
    struct prop p;
    if (!rows || !prop_nth(rows, 0, &p)) {
        printf("Images of format %s have no such options.\n", fmt);
        return;
    }
    printf("Options of %s images (-o NAME=VALUE,...):\n", fmt);
    help_list(rows);
}
