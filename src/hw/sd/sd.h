/* SPDX-License-Identifier: MIT */
/*
 * SD bus: a host controller brings one, with one place; `sd-card` and `emmc` plug into it. A card is a state machine that answers
 * commands at once; what takes time - blocks, erasing - is awaited by the controller. Thread: the controller's domain.
 */
#ifndef HW_SD_SD_H
#define HW_SD_SD_H

#include "block/blk.h"
#include "core/dev.h"
#include "core/state.h"
#include "hw/sd/sd_spec.h"

struct sd_card;

struct sd_bus {
    struct bus bus;                     /* first */
    struct sd_card *card;               /* that is there; NULL: none */
    void (*changed)(void *arg);         /* a card came or went. Lock held */
    void *arg;
};
extern const struct bus_class sd_bus_class;

enum sd_resp { SD_NONE, SD_R1, SD_R1B, SD_R2_CID, SD_R2_CSD, SD_R3, SD_R6, SD_R7 };
enum sd_data { SD_DATA_NONE, SD_DATA_SEND /* of c->buf */, SD_DATA_READ, SD_DATA_TAKE /* into c->buf */, SD_DATA_WRITE };
enum sd_take { SD_TAKE_CSD, SD_TAKE_LOCK };      /* what SD_DATA_TAKE is for */
enum sd_busy { SD_BUSY_NONE, SD_BUSY_ERASE, SD_BUSY_FLUSH };
enum { SD_PASSWORD = 16, SD_WP_GROUPS = 128 * 1024 /* of 16 MiB, as many as the largest e.MMC device has */ };
/* How a group is protected: as CMD31 tells it (e.MMC 6.6.36). An SD card knows the first two. */
enum sd_wp { SD_WP_NONE, SD_WP_TEMPORARY, SD_WP_POWER_ON, SD_WP_PERMANENT };

struct sd_card {
    struct dev dev;                     /* first */
    /* options */
    struct blk_front_opts opt;
    uint8_t spec_version;
    uint64_t boot_size;                 /* of each boot partition of an e.MMC device */
    uint8_t boot_config;
    uint64_t rpmb_size;
    struct obj *rpmb_node;              /* that keeps the key and the counter of the RPMB; NULL: they last as long as the device */
    /* state */
    struct sd_rpmb { /* e.MMC 6.6.22: the partition of frames */
        struct blk *blk;                /* of rpmb_node */
        bool here;                      /* the partition that is accessed */
        bool reliable;                  /* CMD23 asked for a reliable write */
        bool key_set, loaded;
        uint8_t key[32], frames[2][512];        /* those of the last request */
        uint32_t counter, frame_count, total;   /* of the write counter; frames that came; frames of this transfer */
        uint16_t request, result, done; /* what CMD18 answers; how the last write ended, and which it was */
    } rpmb;
    struct blk *blk;
    struct blk_caps caps;
    uint64_t base, size;                /* of the partition that is accessed, in the image */
    uint8_t state;                      /* enum sd_state */
    bool app, high_capacity;
    uint16_t rca;
    uint32_t status, late /* told by the next command */, block_len, block_count, written, ocr;
    uint8_t width, access_mode;         /* enum sd_access */
    bool low_voltage, to_low_voltage;   /* signals are of 1.8 V; CMD11 holds the lines until they are */
    uint8_t cid[16], csd[16], ext_csd[512];
    uint64_t erase_from, erase_to;      /* bytes; erase_to is behind the last */
    uint8_t erase_seq;                  /* 1: the start is known, 2: the end too */
    uint8_t busy;                       /* enum sd_busy */
    bool erase_discards;                /* what is erased need not read as zeroes */
    bool locked;
    uint8_t password[SD_PASSWORD], password_len;        /* 0: none */
    uint32_t lock_len;                  /* CMD16 as CMD42 takes it: of a card of block addresses, too */
    uint64_t wp_size;                   /* of a group of write protection; 0: there are none */
    uint8_t wp[SD_WP_GROUPS / 4];       /* enum sd_wp of each group, two bits */
    /* data phase */
    uint8_t data;                       /* enum sd_data */
    uint8_t take;                       /* enum sd_take */
    uint32_t gen;                       /* raised when a transfer ends */
    uint64_t pos, left;                 /* byte on the medium; bytes, UINT64_MAX: until stopped */
    uint8_t buf[512];
    uint32_t buf_len, buf_pos;
    uint32_t in_flight;                 /* calls of the controller that have not returned */
    struct co_queue idle;
};

/* One row of a command set. */
enum { SD_APP = 1, SD_UNLOCKED = 2 /* a locked card refuses it */ };
struct sd_cmd {
    uint8_t index, flags;
    uint16_t states;                    /* bits of enum sd_state in which it is legal */
    uint8_t resp;                       /* enum sd_resp */
    bool (*run)(struct sd_card *, uint32_t arg);    /* false: no response. May be NULL */
};

struct sd_card_class {
    struct dev_class dev;
    bool mmc;
    const struct sd_cmd *cmds;          /* that the other kind has not, or has otherwise; ends with states 0 */
    bool (*describe)(struct sd_card *, struct err *);       /* checks the size, fills the registers */
    void (*power_on)(struct sd_card *);
    enum sd_wp (*wp_kind)(const struct sd_card *);      /* what CMD28 sets */
};
#define SD_CARD_CLASS(c) ((const struct sd_card_class *)(c)->dev.obj.cls)

/* ---- for controllers ---- */
/* The bus of a controller, "ID.0" or "sd-bus.0". Main loop. NULL with @e filled. */
struct sd_bus *sd_bus_new(struct dev *owner, void (*changed)(void *), void *arg, struct err *e) MUST_CHECK;
/* One command: the length of its response (0, 4 or 16 bytes, the most significant first). */
unsigned sd_command(struct sd_card *c, uint8_t index, uint32_t arg, uint8_t resp[16]);
void sd_power_on(struct sd_card *c);            /* CMD0's state; after power was off */
static inline bool sd_sends(const struct sd_card *c) { return c->data == SD_DATA_SEND || c->data == SD_DATA_READ; }
static inline bool sd_takes(const struct sd_card *c) { return c->data == SD_DATA_TAKE || c->data == SD_DATA_WRITE; }
/* The host's signals are of 1.8 V and the clock runs: 4.2.4.2. */
void sd_low_voltage(struct sd_card *c);
/* What CMD19 (CMD21) sends on 4 or 8 lines: 64 or 128 bytes, how many. SD 4.2.4.5; e.MMC 6.6.8 */
unsigned sd_tuning_block(uint8_t *buf, unsigned lines);
bool sd_write_protected(const struct sd_card *c);
/*
 * The next @len bytes of the data phase: 0; -ENODATA: the card has no such phase (any more); -ERANGE: beyond its end; -EIO;
 * -EAGAIN: the machine stops, do it again when it goes on; -ECANCELED: the transfer was stopped meanwhile. Coroutines.
 */
int co_sd_read(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len);
int co_sd_write(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len);
/* Until the card is not busy any more: 0 or -EAGAIN. Coroutine. */
int co_sd_busy(struct sd_card *c);

/* ---- for cards ---- */
void sd_data_send(struct sd_card *c, uint32_t n);       /* c->buf goes to the host */
void sd_data_take(struct sd_card *c, enum sd_take what, uint32_t n);    /* n bytes come into c->buf, then what they are for is done */
void sd_data_blocks(struct sd_card *c, bool write, uint64_t pos, uint64_t blocks);      /* 0: until stopped */
void sd_data_end(struct sd_card *c);
bool sd_address(struct sd_card *c, uint32_t arg, uint64_t *pos);      /* false: beyond the end, told in the status */
/* Bits [hi:lo] of a register whose most significant bit is bit 8 * size - 1. */
void sd_bits_set(uint8_t *reg, unsigned size, unsigned hi, unsigned lo, uint32_t v);
void sd_cid_fill(struct sd_card *c, bool mmc);

/* sd_common.c: commands that both kinds have, and those that a kind puts a rule of its own before */
extern const struct sd_cmd sd_common_cmds[];
bool sd_run_block_count(struct sd_card *c, uint32_t arg);
bool sd_run_write_single(struct sd_card *c, uint32_t arg);
bool sd_run_write_multiple(struct sd_card *c, uint32_t arg);
bool sd_run_erase_start(struct sd_card *c, uint32_t arg);
bool sd_run_erase_end(struct sd_card *c, uint32_t arg);
bool sd_erase_begin(struct sd_card *c, bool discards);
void sd_csd_taken(struct sd_card *c);

/* sd_protect.c: the lock (SD 4.3.7; e.MMC 6.6.20) and groups of write protection (SD 4.3.6; e.MMC 6.6.36) */
bool sd_run_lock(struct sd_card *c, uint32_t arg);
void sd_lock_taken(struct sd_card *c);
bool sd_run_protect(struct sd_card *c, uint32_t arg);           /* CMD28 to CMD31 */
bool sd_run_unprotect(struct sd_card *c, uint32_t arg);
bool sd_run_protection(struct sd_card *c, uint32_t arg);
bool sd_run_protection_kinds(struct sd_card *c, uint32_t arg);
void sd_protect_power_on(struct sd_card *c);
/* rpmb.c: frames of a transfer in the RPMB partition. Coroutines of the domain; 0 or as co_sd_read() and co_sd_write(). */
bool sd_rpmb_open(struct sd_card *c, struct err *e) MUST_CHECK;         /* the node of the key; refused where this build has no hashes */
int co_sd_rpmb_read(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len);
int co_sd_rpmb_write(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len);
/* A group that overlaps [pos, pos + len) is protected. */
bool sd_group_protected(const struct sd_card *c, uint64_t pos, uint64_t len);

/* sd_card.c: the life that both have */
extern const struct prop sd_drive_props[];       /* over struct blk_front_opts */
extern const struct state_field sd_card_fields[];
bool sd_card_realize(struct dev *dev, struct err *e);
void sd_card_unrealize(struct dev *dev);
void sd_card_reset(struct dev *dev, enum reset_kind k);
bool sd_card_loaded(void *obj, struct err *e);
void co_sd_quiesce(struct dev *dev);

#endif
