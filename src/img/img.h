/* SPDX-License-Identifier: MIT */
/* backplane-img: between its commands. Everything runs in one coroutine of the main loop. */
#ifndef IMG_IMG_H
#define IMG_IMG_H

#include <stdio.h>
#include "block/driver.h"

/* An option of a command: a letter or OPT_*, its long name, what its argument is called, what it does (NULL: another name of it). */
struct img_opt { int key; const char *name, *arg, *doc; };
struct img_cmd {
    const char *name;
    const struct img_opt *opts;
    const char *operands, *doc;
    int (*co_run)(int argc, char **argv);       /* returns the exit status */
};
LINKSET_DECLARE(img_cmds, struct img_cmd);
#define IMG_CMD(fn, nm, ops, ar, ds) static const struct img_cmd row_##fn = { nm, ops, ar, ds, fn }; LINKSET_ADD(img_cmds, struct img_cmd, &row_##fn)

/* ---- options ---- */
struct img_opts {
    const char *fmt, *cache, *src_cache, *output;
    bool image_opts, quiet, progress, unlocked, force;
    json_t *created;                /* options of an image's creation, borrowed: its key opens it */
};
/* Long options without a letter. */
enum { OPT_OUTPUT = 256, OPT_IMAGE_OPTS, OPT_FORCE, OPT_OBJECT, OPT_SHRINK, OPT_PREALLOC, OPT_CHAIN,
       OPT_TARGET_OPTS, OPT_ZERO_TARGET, OPT_SALVAGE, OPT_PATTERN, OPT_FLUSH, OPT_NO_DRAIN, OPT_BITMAPS, OPT_SKIP_BROKEN,
       OPT_BM_ADD, OPT_BM_REMOVE, OPT_BM_CLEAR, OPT_BM_ENABLE, OPT_BM_DISABLE, OPT_BM_MERGE };
/* Rows that several commands have; img_getopt() does what they say. A command refuses what is none of its rows. */
#define IMG_OPT_FORMAT { 'f', "format", "FORMAT", "the format of the image; else it is told by its signature" }
#define IMG_OPT_NAMES { OPT_IMAGE_OPTS, "image-opts", NULL, "an image is named by KEY=VALUE,..., as in -blockdev" }, \
    { OPT_OBJECT, "object", "TYPE,id=ID,...", "makes a secret or TLS credentials for an image" }
#define IMG_OPT_CACHE { 't', "cache", "MODE", "the host's cache: writeback, none, writethrough, directsync or unsafe" }
#define IMG_OPT_SHARE { 'U', "force-share", NULL, "nothing is locked: others may write to what is read" }
#define IMG_OPT_OUTPUT { OPT_OUTPUT, "output", "human|json", "how the answer is written" }
#define IMG_OPT_QUIET { 'q', "quiet", NULL, "says nothing but mistakes" }
#define IMG_OPT_PROGRESS { 'p', "progress", NULL, "shows how far it is; SIGUSR1 asks for a line of that on stderr" }
#define IMG_OPT_FORCE { OPT_FORCE, "force", NULL, "overwrites what exists" }
#define IMG_OPT_END { 0, NULL, NULL, NULL }
/* The next option that is the command's own, -1 at the end, '?' for a mistake (told). */
int img_getopt(int argc, char **argv, const struct img_opt *rows, struct img_opts *o);
void img_usage(FILE *out, const struct img_cmd *c);
void img_help(const struct img_cmd *c);
bool img_is_json(const struct img_opts *o);

/* ---- opening ---- */
enum { IMG_WRITE = 1, IMG_ONE_LAYER = 2 /* no backing file */, IMG_REPAIR = 4, IMG_UNLOCKED = 8, IMG_LOOK = 16 /* nothing outside is opened */,
       IMG_GUESSED = 32 /* though its format is a guess and it names other files */, IMG_BUSY = 64 /* somebody may write to it: a warning */ };
/*
 * The image @name; says what is wrong and returns NULL. Until img_close() nobody else writes to it, nor, with IMG_UNLOCKED or -U, does
 * anybody hear of us.
 */
struct blk_node *img_open(const char *name, const char *fmt, const char *cache, const struct img_opts *o, unsigned flags);
void img_close(struct blk_node *n);
const char *img_format(const struct blk_node *n);
/* "k=v,k=v" of -o into @opts. */
bool img_parse_o(const char *text, json_t *opts);
/* What -o takes when an image is made; the exit status. */
int img_help_o(const char *fmt);
void img_help_rows(const char *fmt, const struct prop *rows);      /* @rows may be NULL */
/* A new image @name of format @fmt reads as zeroes. */
bool img_new_is_zero(const char *name, const char *fmt);
/* Bytes a second of -r. */
struct throttle;
bool img_rate(const char *text, struct throttle *out);
/* The node shows an internal snapshot, by its id or name, or as in snapshot.id=1,snapshot.name=x; says what is wrong. */
bool co_img_show_snapshot(struct blk_node *n, const char *what);
bool img_size(const char *text, uint64_t *out);

/* ---- bitmaps (bitmap.c) ---- */
/* The bitmaps that the image @n keeps can be copied; @skip_broken: but for those that nobody can trust. Says what is wrong. */
bool img_bitmaps_usable(struct blk_node *n, bool skip_broken);
/* Those that can be trusted, into @dst, as they are: granularity, and whether they record. Says what is wrong. */
bool co_img_bitmaps_copy(struct blk_node *src, struct blk_node *dst);

/* ---- what is made ---- */
struct exit_file;
/* The file of the new image @name, which is half of one until img_half_end(): a signal that ends us removes it. NULL is fine there. */
struct exit_file *img_half_begin(const char *name);
void img_half_end(struct exit_file *half, bool whole);

/* ---- saying ---- */
int img_fail(const struct err *e, const char *what);
/* "1.5 MiB": three digits, in the largest unit of which there is nearly one, as QEMU's tool says it. @buf is the answer. */
const char *img_size_text(uint64_t v, char buf[32]);
/* A whole number from @lo to @hi; else says that @option takes one. */
bool img_number(const char *option, const char *text, uint64_t lo, uint64_t hi, uint64_t *out);
int img_refuse(const char *what);               /* an option or a value that is not taken; 1 */
int img_fail_errno(int r, const char *fmt, ...) PRINTF_LIKE(2, 3);
void img_progress(const struct img_opts *o, uint64_t done, uint64_t all);
/* SIGUSR1 asks for a line of progress, on stderr, whether -p is given or not; it ends nothing. */
void img_progress_on_signal(void);
void img_progress_end(const struct img_opts *o);
void img_print_json(json_t *v);

/* ---- data ---- */
/* 1: all of the range is zeroes, 0: not; -errno. */
int co_img_is_zero(struct blk_node *n, uint64_t off, uint64_t len, uint8_t *buf);
/* Reads; beyond the end there are zeroes. */
int co_img_read(struct blk_node *n, uint64_t off, uint64_t len, void *buf);
int co_img_write(struct blk_node *n, uint64_t off, uint64_t len, const void *buf);

#endif
