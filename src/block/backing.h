/* SPDX-License-Identifier: MIT */
/* File names of images, as images and people give them. Main loop. */
#ifndef BLOCK_BACKING_H
#define BLOCK_BACKING_H

#include "block/driver.h"

/* The format whose signature @path begins with, or NULL. Used to refuse, never to choose. */
const char *blk_looks_like(const char *path);
const char *co_node_looks_like(struct blk_node *n);
/* @name as seen from the folder of @image. The caller frees. */
char *blk_path_beside(const char *image, const char *name);
/*
 * The protocol node of @name: a path, or PROTOCOL:... as QEMU writes it (file:PATH, json:{...}, nbd://..., http://...). New reference; NULL
 * with @e filled, which tells protocols that this build lacks from those that nobody has.
 */
json_t *blk_file_opts(const char *name, struct err *e);
/* What any file of the host that an image is made in can be made with. */
extern const struct prop blk_file_create_props[];
/* Files of the protocol that @name has can be made. */
bool blk_makes_files(const char *name);
/* The path where @name is a file or device of the host; NULL: something else. A part of @name. */
const char *blk_local_path(const char *name);
/* What the image @n names, by @opts, is not locked where @n is not (locking=off). */
void blk_lock_as(const struct blk_node *n, json_t *opts);
/* Children in @opts ("file", and below) without a driver: a filename says the protocol; what has a file is raw, refused if it looks like something else. */
bool blk_imply_protocol(json_t *opts, struct err *e) MUST_CHECK;
/* Options of a node of an image format, or of what is to be one: they have a file, but no driver. */
bool blk_is_format(json_t *opts);
/* The node of the image @name in format @fmt; NULL: raw, refused if it looks like something else. */
json_t *blk_image_opts(const char *name, const char *fmt, struct err *e);
/* At most so many images are opened one upon another. */
enum { BLK_CHAIN_MAX = 4096 };
/*
 * Opens what ->backing_name of @n says (in ->backing_fmt), or what @opt (borrowed, may be NULL) says instead: a node's name or options;
 * null or an empty name: none. ->backing is the use. Coroutine.
 */
bool blk_backing_open(struct blk_node *n, json_t *opt, struct err *e) MUST_CHECK;
/* iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN, and back, without the user. */
json_t *blk_iscsi_url_opts(const char *name, struct err *e);
char *blk_iscsi_url(const char *portal, const char *target, unsigned lun);
/* nbd[s]://HOST[:PORT]/EXPORT, nbd[s]+unix:///EXPORT?socket=PATH, nbd:HOST:PORT. */
json_t *blk_nbd_uri_opts(const char *name, struct err *e);
/* The address of such options, which opens the same; the caller frees. NULL: there is none. The strings may be NULL but for @export. */
char *blk_nbd_uri(json_t *server, const char *export, const char *tls_creds, const char *tls_hostname);

/* ---- what an image is (image_info.c) ---- */
const char *blk_format_name(const struct blk_node *n);
bool blk_is_encrypted(const struct blk_node *n);
/* QEMU's ImageInfo; @name as it is told. */
json_t *blk_image_info(struct blk_node *n, const char *name);
/* With that of the backing images within, @depth of them at most. */
json_t *blk_chain_info(struct blk_node *top, unsigned depth);

/* ---- the chain ---- */
/* The next image of the chain, below @n and its filters; NULL: none. */
struct blk_node *blk_chain_next(struct blk_node *n);
bool blk_chain_has(struct blk_node *top, const struct blk_node *n);
/* The image of the chain from @top on whose backing image is @n; NULL: none. */
struct blk_node *blk_chain_above(struct blk_node *top, const struct blk_node *n);
/* By the name of its file or node, or as the image above calls it. */
struct blk_node *blk_chain_find(struct blk_node *top, const char *file);
/*
 * As far as one answer goes from @off: whether the images of @top's chain above @base (NULL: all) have something of their own there
 * (*allocated), in which (out->depth), and what (out->zero).
 */
int co_chain_map(struct blk_node *top, const struct blk_node *base, uint64_t off, uint64_t len, struct blk_extent *out, bool *allocated);
/* Can be written, or is read-only from now on: releases the lock of a file that only was opened for writing. */
bool co_node_set_writable(struct blk_node *n, bool writable, struct err *e) MUST_CHECK;

#endif
