/* SPDX-License-Identifier: MIT */
/* File names of images, as images and people give them. Main loop. */
#ifndef BLOCK_BACKING_H
#define BLOCK_BACKING_H

#include "block/driver.h"

/* The format whose signature @path begins with, or NULL. Used to refuse, never to choose. */
const char *blk_looks_like(const char *path);
/* @name as seen from the folder of @image. The caller frees. */
char *blk_path_beside(const char *image, const char *name);
/* The protocol node of @name: a path, file:PATH, null-co://, json:{...}, nbd://..., http://... New reference, NULL with @e filled. */
json_t *blk_file_opts(const char *name, struct err *e);
/* The node of the image @name in format @fmt; NULL: raw, refused if it looks like something else. */
json_t *blk_image_opts(const char *name, const char *fmt, struct err *e);
/*
 * Opens what ->backing_name of @n says (in ->backing_fmt), or what @opt (borrowed, may be NULL) says instead: a node's name or options;
 * null or an empty name: none. ->backing is the use. Coroutine.
 */
bool blk_backing_open(struct blk_node *n, json_t *opt, struct err *e) MUST_CHECK;
/* nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH; NULL without an error: something else. */
json_t *blk_nbd_uri_opts(const char *name, struct err *e);

#endif
