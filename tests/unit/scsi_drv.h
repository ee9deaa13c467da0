/* SPDX-License-Identifier: MIT */
/* SCSI commands for tests: a virtio-scsi adapter in a virtio-mmio slot, one request at a time or several. */
#ifndef TESTS_UNIT_SCSI_DRV_H
#define TESTS_UNIT_SCSI_DRV_H

#include "virtio_drv.h"
#include "probe_disk.h"
#include "hw/scsi/scsi.h"
#include "hw/virtio/virtio_scsi.h"

enum { SD_CTL, SD_EVT, SD_REQ, SD_QUEUES };
enum { SD_BAD = 0x100 };                /* plus virtio-scsi's response, where a command was not executed */

static struct dev *sd_hba;
static uint8_t sd_sense[96];
static uint32_t sd_sense_len, sd_residual;

static inline void sd_open(void)
{
    vd_open();
    sd_hba = vd_dev("{'driver':'virtio-scsi-device','id':'foo'}");
}

static inline void sd_begin(void)
{
    vd_start(BIT64(VIRTIO_SCSI_F_HOTPLUG) | BIT64(VIRTIO_SCSI_F_CHANGE), SD_QUEUES);
}

struct sd_cmd { uint64_t resp, in; uint32_t in_len, out_len; };

/* Queues a command on target 1, unit @lun, without waiting. */
static inline struct sd_cmd sd_submit(unsigned lun, uint64_t tag, const uint8_t *cdb, unsigned n, const void *out, uint32_t out_len, uint32_t in_len)
{
    struct virtio_scsi_cmd_req h = { .lun = { 1, 1, (uint8_t)(0x40 | lun >> 8), (uint8_t)lun }, .id = tag };
    if (vd_pool > HW_RAM + HW_RAM_SIZE / 2)
        vd_pool = HW_RAM + 0x8000;
    uint64_t req = vd_alloc(sizeof h + 32), resp = vd_alloc(108), data = vd_alloc(MAX(out_len, in_len) + 1u);
    struct vd_buf b[3] = { { req, sizeof h + 32, false } };
    unsigned k = 1;
    memcpy(vd_host(req), &h, sizeof h);
    memcpy(vd_host(req) + sizeof h, cdb, n);
    memset(vd_host(resp), 0xee, 108);
    if (out_len) {
        memcpy(vd_host(data), out, out_len);
        b[k++] = (struct vd_buf){ data, out_len, false };
    }
    b[k++] = (struct vd_buf){ resp, 108, true };
    if (in_len)
        b[k++] = (struct vd_buf){ data, in_len, true };
    vd_add(SD_REQ, b, k);
    w32(0x50, SD_REQ);
    return (struct sd_cmd){ resp, data, in_len, out_len };
}

/* Until @queue has a used buffer. Always true: what is in vain fails the test. */
static inline bool sd_wait(unsigned queue)
{
    UNTIL(vd_used(queue) >= 0, loop_run_once(loop_main(), 1000000));
    return true;
}

/* The status of a finished command; its sense data and residual go to sd_*. */
static inline int sd_result(const struct sd_cmd *c)
{
    struct virtio_scsi_cmd_resp r;
    memcpy(&r, vd_host(c->resp), sizeof r);
    memcpy(sd_sense, vd_host(c->resp) + sizeof r, sizeof sd_sense);
    sd_sense_len = r.sense_len;
    sd_residual = r.residual;
    return r.response ? SD_BAD + r.response : r.status;
}

static inline int sd_lun_cmd(unsigned lun, const uint8_t *cdb, unsigned n, const void *out, uint32_t out_len, void *in, uint32_t in_len)
{
    struct sd_cmd c = sd_submit(lun, 1, cdb, n, out, out_len, in_len);
    if (!sd_wait(SD_REQ))
        fail_msg("command 0x%02x does not end", cdb[0]);
    if (in)
        memcpy(in, vd_host(c.in), in_len);
    return sd_result(&c);
}

static inline int sd_cmd(const uint8_t *cdb, unsigned n, const void *out, uint32_t out_len, void *in, uint32_t in_len)
{
    return sd_lun_cmd(0, cdb, n, out, out_len, in, in_len);
}

#define CDB(...) ((const uint8_t[16]){ __VA_ARGS__ }), 16

/* COMPARE AND WRITE of block 0, that holds zeroes, by four commands at once over @ways queues: how many find what they expect. */
static inline unsigned sd_race(unsigned ways)
{
    uint8_t b[1024] = { 0 };
    struct sd_cmd c[4];
    unsigned good = 0;
    memset(probe_data, 0, 512);
    probe_hold = true;
    for (unsigned i = 0; i < 4; i++) {
        b[512] = (uint8_t)(i + 1);
        c[i] = sd_submit(i % ways, i, CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), b, 1024, 0);
    }
    vd_run();
    assert_int_equal(probe_waiting, 1);
    probe_go();
    for (unsigned i = 0; i < 4; i++)
        assert_true(sd_wait(SD_REQ));
    for (unsigned i = 0; i < 4; i++)
        good += sd_result(&c[i]) == SCSI_GOOD;
    return good;
}

/* Sense as 0xKKAAQQ, of either format. */
static inline uint32_t sd_code(void)
{
    if (sd_sense_len && (sd_sense[0] & 0x7f) >= 0x72)
        return (uint32_t)((sd_sense[1] & 0xf) << 16 | sd_sense[2] << 8 | sd_sense[3]);
    return sd_sense_len ? (uint32_t)((sd_sense[2] & 0xf) << 16 | sd_sense[12] << 8 | sd_sense[13]) : 0;
}

#define assert_sense(status, code) do { assert_int_equal(status, SCSI_CHECK_CONDITION); assert_int_equal(sd_code(), code); } while (0)

/* Tells pending unit attentions. */
static inline void sd_ready(unsigned lun)
{
    for (int i = 0; i < 9 && sd_lun_cmd(lun, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0) == SCSI_CHECK_CONDITION && sd_sense[2] == 6; i++)
        ;
}

/* Commands of @dev's set with random fields, of its own unit and others of its target, whatever they say: the adapter goes on. */
static inline void sd_random_commands(const struct dev *dev, int rounds)
{
    const struct scsi_cmd *cmds = SCSI_DEV_CLASS((const struct scsi_dev *)dev)->cmds;
    unsigned rows = 0;

    while (cmds[rows].co_run)
        rows++;
    for (int i = 0; i < hw_rounds(rounds); i++) {
        const struct scsi_cmd *row = &cmds[hw_rand(rows + 1)];
        uint8_t c[32], data[600];
        uint32_t n = hw_rand(4) ? hw_rand(sizeof data) : 0;
        bool out = hw_rand(2);
        for (unsigned k = 0; k < sizeof c; k++)
            c[k] = (uint8_t)(hw_rand(3) ? hw_rand(4) : hw_rand(256));
        for (unsigned k = 0; k < sizeof data; k++)
            data[k] = (uint8_t)hw_rand(hw_rand(2) ? 256 : 8);
        if (row->co_run) {
            c[0] = row->op;
            if (row->sa >= 0 && hw_rand(8))
                c[row->op == OP_VARIABLE_LENGTH ? 9 : 1] = (uint8_t)((c[1] & 0xe0) | row->sa);
            if (row->op == OP_VARIABLE_LENGTH && hw_rand(8))
                c[1] = c[8] = 0, c[7] = 0x18;
        }
        sd_lun_cmd(hw_rand(3), c, 32, data, out ? n : 0, NULL, out ? 0 : n);
        assert_false(vd_needs_reset());
    }
}

#endif
