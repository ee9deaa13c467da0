/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 format as numbers (QEMU's docs/interop/qcow2, section names in the comments). All integers of the file are big
 * endian. Offsets of header fields are bytes from the start of the file.
 */
#ifndef BLOCK_QCOW2_SPEC_H
#define BLOCK_QCOW2_SPEC_H

#include "base/bits.h"

/* ---- Header ---- */
#define Q2_MAGIC UINT32_C(0x514649fb)
enum {
    Q2_H_MAGIC = 0, Q2_H_VERSION = 4, Q2_H_BACKING_OFF = 8, Q2_H_BACKING_LEN = 16, Q2_H_CLUSTER_BITS = 20, Q2_H_SIZE = 24,
    Q2_H_CRYPT = 32, Q2_H_L1_SIZE = 36, Q2_H_L1_OFF = 40, Q2_H_RT_OFF = 48, Q2_H_RT_CLUSTERS = 56, Q2_H_SNAPSHOTS = 60,
    Q2_H_SNAP_OFF = 64,
    Q2_H_V2_LEN = 72,
    Q2_H_INCOMPAT = 72, Q2_H_COMPAT = 80, Q2_H_AUTOCLEAR = 88, Q2_H_REF_ORDER = 96, Q2_H_LEN = 100,
    Q2_H_V3_LEN = 104,
    Q2_H_COMPRESSION = 104,
    Q2_H_OUR_LEN = 112,
};
enum { Q2_CRYPT_NONE, Q2_CRYPT_AES, Q2_CRYPT_LUKS };
enum { Q2_COMPRESS_ZLIB, Q2_COMPRESS_ZSTD };

enum {
    Q2_INCOMPAT_DIRTY = 1 << 0, Q2_INCOMPAT_CORRUPT = 1 << 1, Q2_INCOMPAT_DATA_FILE = 1 << 2, Q2_INCOMPAT_COMPRESSION = 1 << 3,
    Q2_INCOMPAT_EXTL2 = 1 << 4,
    Q2_INCOMPAT_KNOWN = (1 << 5) - 1,
    Q2_COMPAT_LAZY = 1 << 0,
    Q2_AUTOCLEAR_BITMAPS = 1 << 0, Q2_AUTOCLEAR_RAW_DATA = 1 << 1,
    Q2_AUTOCLEAR_KNOWN = 3,
};

/* Header extensions: type, length, data, padding to 8. */
enum {
    Q2_EXT_END = 0, Q2_EXT_BACKING_FMT = (int)0xe2792aca, Q2_EXT_FEATURES = 0x6803f857, Q2_EXT_BITMAPS = 0x23852875,
    Q2_EXT_CRYPT = 0x0537be77, Q2_EXT_DATA_FILE = 0x44415441,
};

/* ---- Limits: of the format, and of what an image may make us allocate ---- */
enum {
    Q2_MIN_CLUSTER_BITS = 9, Q2_MAX_CLUSTER_BITS = 21, Q2_MIN_EXTL2_BITS = 14,
    Q2_MAX_BACKING_NAME = 1023,
    Q2_MAX_L1_BYTES = 32 << 20, Q2_MAX_RT_BYTES = 8 << 20,
    Q2_MAX_SNAPSHOTS = 65536, Q2_MAX_SNAP_TABLE = 16 << 20, Q2_MAX_SNAP_EXTRA = 1024,
    Q2_MAX_BITMAPS = 65535, Q2_MAX_BITMAP_DIR = 16 << 20, Q2_MAX_BITMAP_TABLES = 4 << 20 /* entries of all of them */,
};

/* ---- Cluster mapping ---- */
#define Q2_OFFSET_MASK  UINT64_C(0x00fffffffffffe00)    /* of L1, L2 and bitmap table entries: bits 9 - 55 */
#define Q2_RT_MASK      UINT64_C(0xfffffffffffffe00)    /* of refcount table entries */
#define Q2_COPIED       BIT64(63)
#define Q2_COMPRESSED   BIT64(62)
#define Q2_ZERO         BIT64(0)
#define Q2_L1_RESERVED  UINT64_C(0x7f000000000001ff)
#define Q2_L2_RESERVED  UINT64_C(0x3f000000000001fe)
#define Q2_BT_RESERVED  UINT64_C(0xff000000000001fe)    /* of bitmap table entries */
enum { Q2_SUBCLUSTERS = 32 };                           /* Extended L2 Entries */

/* ---- Snapshots: table entry ---- */
enum {
    Q2_S_L1_OFF = 0, Q2_S_L1_SIZE = 8, Q2_S_ID_LEN = 12, Q2_S_NAME_LEN = 14, Q2_S_SEC = 16, Q2_S_NSEC = 20, Q2_S_VM_CLOCK = 24,
    Q2_S_VM_SIZE32 = 32, Q2_S_EXTRA_LEN = 36, Q2_S_FIXED = 40, Q2_S_VM_SIZE64 = 40, Q2_S_DISK_SIZE = 48, Q2_S_ICOUNT = 56,
};

/* ---- Bitmaps: directory entry ---- */
enum {
    Q2_B_TABLE_OFF = 0, Q2_B_TABLE_SIZE = 8, Q2_B_FLAGS = 12, Q2_B_TYPE = 16, Q2_B_GRANULARITY = 17, Q2_B_NAME_LEN = 18,
    Q2_B_EXTRA_LEN = 20, Q2_B_FIXED = 24,
    Q2_BF_IN_USE = 1, Q2_BF_AUTO = 2, Q2_BF_EXTRA_COMPATIBLE = 4,
    Q2_B_DIRTY_TRACKING = 1,
};

#endif
