/* SPDX-License-Identifier: MIT */
/*
 * The replay protected memory block (8.18): Security Send brings a frame with a request, Security Receive takes the frame with its
 * answer. A MAC with a key that is programmed once covers a frame from its target on, and a counter makes every write one that was never
 * seen before. The drive's first 4 KiB hold key, counter and device configuration block, its rest is the data. One target.
 */
#include "hw/nvme/rpmb.h"

#include <string.h>
#include "crypto/cipher.h"

enum { F_MAC = 191, F_TARGET = 223, F_NONCE = 224, F_COUNTER = 240, F_ADDRESS = 244, F_SECTORS = 248, F_RESULT = 252, F_TYPE = 254,
       HEADER = NVME_RPMB_HEADER, MAC = NVME_RPMB_KEY, NONCE = 16, SECTOR = 512 };
enum { REQ_KEY = 1, REQ_COUNTER, REQ_WRITE, REQ_READ, REQ_RESULT, REQ_CONFIG_WRITE, REQ_CONFIG_READ };
enum { OK, GENERAL, WRONG_MAC, WRONG_COUNTER, WRONG_ADDRESS, NOT_WRITTEN, NOT_READ, NO_KEY, WRONG_CONFIG, EXPIRED = 0x80 };
/* Bytes of the device configuration block: boot partitions are protected; which are locked; which states of write protection hosts may enter. */
enum { CONFIG_ENABLE, CONFIG_LOCK, CONFIG_PROTECT };
enum { KEPT_COUNTER = 8, KEPT_CONFIG = 12, KEPT_KEY = 16, KEPT = 4096 };        /* what is kept before the data, after the magic */
#define UNIT (128 * KiB)
#define UNITS_MAX 256u
#define ACCESS 8u                       /* sectors of a request at most: they fit in the shortest mdts with their header */

static const char magic[8] = "RPMBnvme";

/* ---- what is kept ---- */

static int co_load(struct nvme_rpmb *p)
{
    uint8_t b[SECTOR];
    struct iovec v = { b, sizeof b };
    int e = p->loaded ? 0 : co_blk_preadv(p->blk, 0, sizeof b, &v, 1, 0);

    if (e || p->loaded)
        return e;
    p->loaded = true;
    p->key_set = !memcmp(b, magic, sizeof magic);
    if (!p->key_set)
        return 0;
    p->counter = ld_le32(b + KEPT_COUNTER);
    memcpy(p->config, b + KEPT_CONFIG, sizeof p->config);
    memcpy(p->key, b + KEPT_KEY, MAC);
    return 0;
}

static uint16_t co_keep(struct nvme_rpmb *p, uint32_t counter, const uint8_t *config, const uint8_t *key)
{
    uint8_t b[SECTOR] = { 0 };
    struct iovec v = { b, sizeof b };

    memcpy(b, magic, sizeof magic);
    st_le32(b + KEPT_COUNTER, counter);
    memcpy(b + KEPT_CONFIG, config, sizeof p->config);
    memcpy(b + KEPT_KEY, key, MAC);
    if (p->read_only || co_blk_pwritev(p->blk, 0, sizeof b, &v, 1, BLK_FUA))
        return NOT_WRITTEN;
    p->counter = counter;
    memmove(p->config, config, sizeof p->config);
    memmove(p->key, key, MAC);
    p->key_set = true;
    return OK;
}

/* ---- requests ---- */

/* Of frame @f with @sectors of data. */
static void sign(const struct nvme_rpmb *p, const uint8_t *f, uint32_t sectors, uint8_t *mac)
{
#ifdef CONFIG_NETTLE                    /* else there is no drive: nvme_rpmb_init() */
    struct hash_mac *m = hash_mac_new("sha256", p->key, MAC);

    hash_mac_add(m, f + F_TARGET, HEADER - F_TARGET + (size_t)sectors * SECTOR);
    hash_mac_end(m, mac);
#else
    memset(mac, 0, MAC);
#endif
}

static uint64_t offset_of(const uint8_t *f) { return (uint64_t)ld_le32(f + F_ADDRESS) * SECTOR; }

/* What every authenticated write must have right, in the order of 8.18.2.3. */
static uint16_t write_allowed(const struct nvme_rpmb *p, const uint8_t *f, uint32_t sectors)
{
    uint8_t mac[MAC];

    if (!p->key_set)
        return NO_KEY;
    if (p->counter == UINT32_MAX)
        return NOT_WRITTEN;
    if (!sectors || ld_le32(f + F_SECTORS) != sectors)
        return GENERAL;
    if (ld_le16(f + F_TYPE) == REQ_WRITE && !range_ok(offset_of(f), (uint64_t)sectors * SECTOR, p->size))
        return WRONG_ADDRESS;
    sign(p, f, sectors, mac);
    if (memcmp(mac, f + F_MAC, MAC))
        return WRONG_MAC;
    return ld_le32(f + F_COUNTER) == p->counter ? OK : WRONG_COUNTER;
}

static uint16_t co_program(struct nvme_rpmb *p, uint8_t *f, uint32_t sectors)
{
    static const uint8_t unlocked[sizeof p->config];

    return sectors ? GENERAL : p->key_set ? NOT_WRITTEN : co_keep(p, 0, unlocked, f + F_MAC);
}

/* The data is there before the counter moves: after a cut in between the host's next try is the same write. */
static uint16_t co_write(struct nvme_rpmb *p, uint8_t *f, uint32_t sectors)
{
    struct iovec v = { f + HEADER, (size_t)sectors * SECTOR };
    uint16_t result = write_allowed(p, f, sectors);

    if (result)
        return result;
    if (p->read_only || co_blk_pwritev(p->blk, KEPT + offset_of(f), v.iov_len, &v, 1, BLK_FUA))
        return NOT_WRITTEN;
    return co_keep(p, p->counter + 1, p->config, p->key);
}

/* Protection of boot partitions is never switched off again, and nothing is locked without it. No other byte has a meaning here. */
static uint16_t co_configure(struct nvme_rpmb *p, uint8_t *f, uint32_t sectors)
{
    const uint8_t *c = f + HEADER;
    uint16_t result = write_allowed(p, f, sectors);

    if (result)
        return result;
    if (sectors != 1)
        return GENERAL;
    if (c[CONFIG_ENABLE] > 1 || c[CONFIG_LOCK] > 3 || c[CONFIG_PROTECT] > 3 || c[CONFIG_ENABLE] < p->config[CONFIG_ENABLE] || (c[CONFIG_LOCK] && !c[CONFIG_ENABLE]))
        return WRONG_CONFIG;
    for (unsigned i = sizeof p->config; i < SECTOR; i++)
        if (c[i])
            return WRONG_CONFIG;
    return co_keep(p, p->counter + 1, c, p->key);
}

static const struct { uint16_t type; uint16_t (*co)(struct nvme_rpmb *p, uint8_t *f, uint32_t sectors); } changes[] = {
    { REQ_KEY, co_program }, { REQ_WRITE, co_write }, { REQ_CONFIG_WRITE, co_configure },
};

/* Takes the request in frame @f: a change is made now and its result kept, an answer is made when the host comes for it. */
static uint16_t co_take(struct nvme_rpmb *p, uint8_t *f, uint32_t sectors)
{
    uint16_t type = ld_le16(f + F_TYPE);

    if (co_load(p))
        return NVME_INTERNAL;
    if (type != REQ_RESULT)
        memcpy(p->request, f, HEADER);
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
        if (changes[i].type == type) {
            p->result = changes[i].co(p, f, sectors);
            p->asked = true;
            return NVME_OK;
        }
    p->asked |= type != REQ_RESULT;
    return NVME_OK;
}

/* Target and length of the command; how many sectors follow the header in @sectors. */
static bool args_ok(const struct nvme_req *r, uint32_t *sectors)
{
    uint32_t len = r->cmd.cdw11;

    *sectors = (len - HEADER) / SECTOR;
    return !(r->cmd.cdw10 & 0xff) && len >= HEADER && (len - HEADER) % SECTOR == 0 && *sectors <= ACCESS;
}

uint16_t co_nvme_rpmb_send(struct nvme_req *r)
{
    struct nvme_rpmb *p = &r->n->rpmb;
    uint8_t f[HEADER + ACCESS * SECTOR];
    uint32_t sectors;
    uint16_t st;

    if (!args_ok(r, &sectors))
        return NVME_INVALID_FIELD | NVME_DNR;
    st = nvme_from_host(r, f, r->cmd.cdw11);
    if (!st && f[F_TARGET])
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (st)
        return st;
    co_mutex_lock(&p->busy);
    st = nvme_stale(r) ? NVME_ABORT_REQUESTED : co_take(p, f, sectors);
    p->asked &= !nvme_stale(r);         /* a reset came meanwhile */
    co_mutex_unlock(&p->busy);
    return st;
}

/* ---- answers ---- */

/* Into frame @f, zeroed, with room for @sectors. */
static void co_answer(struct nvme_rpmb *p, uint8_t *f, uint32_t sectors)
{
    const uint8_t *ask = p->request;
    uint16_t type = ld_le16(ask + F_TYPE), result = p->key_set ? OK : NO_KEY;
    struct iovec v = { f + HEADER, (size_t)sectors * SECTOR };

    switch (type) {
    case REQ_COUNTER:
        memcpy(f + F_NONCE, ask + F_NONCE, NONCE);
        st_le32(f + F_COUNTER, p->counter);
        break;
    case REQ_READ:
        memcpy(f + F_NONCE, ask + F_NONCE, NONCE);
        memcpy(f + F_ADDRESS, ask + F_ADDRESS, F_RESULT - F_ADDRESS);   /* the sectors, too */
        if (result == OK && (!sectors || sectors != ld_le32(ask + F_SECTORS)))
            result = GENERAL;
        if (result == OK && !range_ok(offset_of(ask), v.iov_len, p->size))
            result = WRONG_ADDRESS;
        if (result == OK && co_blk_preadv(p->blk, KEPT + offset_of(ask), v.iov_len, &v, 1, 0))
            result = NOT_READ;
        break;
    case REQ_CONFIG_READ:
        memcpy(f + F_NONCE, ask + F_NONCE, NONCE);
        st_le32(f + F_COUNTER, p->counter);
        st_le32(f + F_SECTORS, 1);
        if (result == OK && sectors != 1)
            result = GENERAL;
        if (result == OK)
            memcpy(f + HEADER, p->config, sizeof p->config);
        break;
    case REQ_WRITE: case REQ_CONFIG_WRITE:
        memcpy(f + F_ADDRESS, ask + F_ADDRESS, F_SECTORS - F_ADDRESS);
        st_le32(f + F_COUNTER, p->counter);
        result = p->result;
        break;
    case REQ_KEY: result = p->result; break;
    default: result = GENERAL;
    }
    st_le16(f + F_RESULT, result | (p->counter == UINT32_MAX ? EXPIRED : 0));
    st_le16(f + F_TYPE, (uint16_t)(type << 8));
    if (p->key_set && type != REQ_KEY)
        sign(p, f, sectors, f + F_MAC);
}

uint16_t co_nvme_rpmb_receive(struct nvme_req *r)
{
    struct nvme_rpmb *p = &r->n->rpmb;
    uint8_t f[HEADER + ACCESS * SECTOR] = { 0 };
    uint32_t sectors;
    uint16_t st;

    if (!args_ok(r, &sectors))
        return NVME_INVALID_FIELD | NVME_DNR;
    co_mutex_lock(&p->busy);
    st = !p->asked ? NVME_SEQUENCE | NVME_DNR : co_load(p) ? NVME_INTERNAL : NVME_OK;   /* the request may be a restored machine's */
    if (!st)
        co_answer(p, f, sectors);
    co_mutex_unlock(&p->busy);
    if (nvme_stale(r))
        return NVME_ABORT_REQUESTED;
    return st ? st : nvme_to_host(r, f, r->cmd.cdw11);
}

bool co_nvme_rpmb_locks(struct nvme *n, unsigned id)
{
    struct nvme_rpmb *p = &n->rpmb;
    bool locked;

    if (!p->blk)
        return false;
    co_mutex_lock(&p->busy);
    locked = co_load(p) || p->config[CONFIG_LOCK] >> id & 1;
    co_mutex_unlock(&p->busy);
    return locked;
}

bool co_nvme_rpmb_protects(struct nvme *n, unsigned state)
{
    struct nvme_rpmb *p = &n->rpmb;
    bool may;

    if (!p->blk)
        return false;
    co_mutex_lock(&p->busy);
    may = !co_load(p) && p->config[CONFIG_PROTECT] >> (state - NVME_PROTECT_CYCLE) & 1;
    co_mutex_unlock(&p->busy);
    return may;
}

uint8_t nvme_protect_states(const struct nvme *n) { return n->rpmb.blk ? NVME_NWPC_PROTECT | NVME_NWPC_CYCLE | NVME_NWPC_EVER : NVME_NWPC_PROTECT; }

/* ---- life ---- */

uint32_t nvme_rpmb_support(const struct nvme *n)
{
    return n->rpmb.blk ? 1u | (uint32_t)(n->rpmb.size / UNIT - 1) << 16 | (ACCESS - 1) << 24 : 0;      /* one target, HMAC SHA-256 */
}

bool nvme_rpmb_init(struct nvme *n, struct err *e)
{
    struct nvme_rpmb *p = &n->rpmb;
    struct blk_node *node = (struct blk_node *)p->drive;
    struct blk_caps caps;
    uint64_t size;

    if (!node)
        return true;
#ifndef CONFIG_NETTLE
    return err_set(e, ERR_NOT_BUILT, "rpmb-drive= needs nettle, which is not in this build");
#endif
    p->blk = blk_open(node, blk_perm_rw(node), BLK_PERM_READ, n->pci.dev.dom, n->pci.dev.obj.id, e);
    if (!p->blk)
        return false;
    blk_get_caps(p->blk, &caps);
    p->read_only = caps.read_only;
    size = blk_size(p->blk);
    if (size < KEPT + UNIT || (size - KEPT) % UNIT || (size - KEPT) / UNIT > UNITS_MAX) {
        nvme_rpmb_fini(n);
        return err_set(e, ERR_VALUE, "rpmb-drive '%s' has %llu bytes, but must have 4 KiB and a multiple of 128 KiB up to 32 MiB", p->drive->id,
                       (unsigned long long)size);
    }
    p->size = size - KEPT;
    return true;
}

void nvme_rpmb_fini(struct nvme *n)
{
    if (n->rpmb.blk)
        blk_close(n->rpmb.blk);
    n->rpmb.blk = NULL;
    n->rpmb.size = 0;
}

void nvme_rpmb_reset(struct nvme *n)
{
    n->rpmb.asked = false;
    memset(n->rpmb.request, 0, sizeof n->rpmb.request);
}

static const struct state_field fields[] = {
    STATE_SKIP(struct nvme_rpmb, drive, "an option"), STATE_SKIP(struct nvme_rpmb, blk, "the host's"), STATE_SKIP(struct nvme_rpmb, size, "the host's"),
    STATE_SKIP(struct nvme_rpmb, read_only, "the host's"), STATE_SKIP(struct nvme_rpmb, busy, "nothing is in flight"),
    STATE_SKIP(struct nvme_rpmb, loaded, "read again"), STATE_SKIP(struct nvme_rpmb, key_set, "on the drive"),
    STATE_SKIP(struct nvme_rpmb, counter, "on the drive"), STATE_SKIP(struct nvme_rpmb, config, "on the drive"),
    STATE_SKIP(struct nvme_rpmb, key, "on the drive"), STATE_BOOL(struct nvme_rpmb, asked), STATE_BYTES(struct nvme_rpmb, request),
    STATE_UINT(struct nvme_rpmb, result, .max = WRONG_CONFIG), STATE_END
};
const struct state_desc nvme_rpmb_state = { .name = "nvme-rpmb", .version = 1, .fields = fields };
