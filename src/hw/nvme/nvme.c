/* SPDX-License-Identifier: MIT */
/* The device `nvme`: options and life. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include "base/str.h"
#include "hw/nvme/cmb.h"
#include "hw/nvme/ctrl_int.h"
#include "hw/nvme/fault.h"
#include "hw/nvme/firmware.h"
#include "hw/nvme/maint.h"
#include "hw/nvme/notice.h"
#include "hw/nvme/thermal.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/rpmb.h"
#include "hw/nvme/subsys_int.h"
#include "hw/nvme/timing.h"
#include "hw/nvme/virt.h"
#include "loop/iothread.h"
#include "pci/sriov.h"

#define REGS_SIZE NVME_REG_DOORBELL

static struct nvme *nvme_of(struct dev *d) { return (struct nvme *)d; }

bool nvme_ctrl_init(struct obj *o, struct err *e)
{
    struct nvme *n = (struct nvme *)o;

    nvme_subsys_init(&n->own_ss);
    n->own_ss.own = true;
    nvme_ana_apply(n);
    prop_defaults(nvme_ns_props, &n->ns_opt);           /* of the namespace that drive= makes */
    list_init(&n->free_reqs);
    list_init(&n->parked);
    list_init(&n->waits);
    return true;
}

void nvme_ctrl_finalize(struct obj *o)
{
    nvme_faults_free((struct nvme *)o);
    nvme_timing_free((struct nvme *)o);
    nvme_fw_forget((struct nvme *)o);
    nvme_subsys_fini(&((struct nvme *)o)->own_ss);
}

/* ---- stop and go ---- */

static void resumed(void *arg)
{
    struct nvme *n = arg;
    struct list again = LIST_INIT(again), *l;

    if (n->pci.dev.leaving)
        return;
    n->quiesced = false;
    list_move(&again, &n->parked);
    while ((l = list_pop(&again))) {
        struct nvme_req *r = list_entry(l, struct nvme_req, link);
        list_push(&r->sq->reqs, &r->link);
        n->in_flight++;
        co_spawn_on(r->sq->loop, n->pci.dev.dom, co_nvme_command, r);
    }
    nvme_told(n);
    if (nvme_ready(n))
        nvme_kick_all(n);
}

static void drained_look(void *arg) { co_queue_wake_all(&((struct nvme *)arg)->drained); }

void nvme_drained_wake(struct nvme *n)
{
    if (!n->drained.first)
        return;
    if (loop_current() == domain_loop(n->pci.dev.dom))
        co_queue_wake_all(&n->drained);
    else
        domain_post(&n->drained_post);
}

/* Other controllers of the subsystem may be at it: they find it no more, and what they have begun ends. */
static void co_own_namespace_leaves(struct nvme *n)
{
    nvme_unit_leave(&n->own_unit);
    while (nvme_unit_busy(&n->own_unit))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + 100000);
}

void co_nvme_ctrl_quiesce(struct dev *d)
{
    struct nvme *n = nvme_of(d);

    n->quiesced = true;
    nvme_queues_rewind(n);
    nvme_waits_look(n);
    while (n->in_flight || n->background)
        co_queue_wait(&n->drained);
    if (d->leaving && n->own_unit.blk)
        co_own_namespace_leaves(n);
}

void nvme_ctrl_dev_reset(struct dev *d, enum reset_kind k) { nvme_ctrl_reset(nvme_of(d), k == RESET_COLD || k == RESET_WARM); }

/* ---- realize ---- */

static uint64_t doorbells_size(const struct nvme *n) { return (n->max_ioqpairs + 1) * UINT64_C(8); }

/* Registers, doorbells, MSI-X; the size of all. */
static uint64_t bar0_layout(struct nvme *n)
{
    uint64_t table = align_up(REGS_SIZE + doorbells_size(n), 4096), pba = align_up(table + n->msix_qsize * UINT64_C(16), 4096), size = 1;

    while (size < pba + 4096)
        size <<= 1;
    n->msix_table = (uint32_t)table;
    n->msix_pba = (uint32_t)pba;
    return size;
}

static void bars_init(struct nvme *n)
{
    uint64_t db = doorbells_size(n);

    region_init_container(&n->bar, "nvme", bar0_layout(n));
    region_init_mmio(&n->regs, "nvme-registers", REGS_SIZE, &nvme_regs_ops, n, n->pci.dev.dom);
    region_init_mmio(&n->doorbells, "nvme-doorbells", db, &nvme_doorbell_ops, n, n->pci.dev.dom);
    region_add(&n->bar, 0, &n->regs, 0);
    region_add(&n->bar, REGS_SIZE, &n->doorbells, 0);
}

static void bars_fini(struct nvme *n)
{
    nvme_cmb_fini(n);
    region_fini(&n->doorbells);
    region_fini(&n->regs);
    region_fini(&n->bar);
}

bool nvme_ctrl_bar0(struct nvme *n, struct err *e)
{
    struct pci_dev *p = &n->pci;

    bars_init(n);
    pci_bar_add(p, 0, PCI_BAR_MEM64, &n->bar);
    if (n->exclusive_bar ? pci_msix_init(p, n->msix_qsize, 4, 0, (uint32_t)align_up(n->msix_qsize * 16u, 4096), NULL, e)
                         : pci_msix_init(p, n->msix_qsize, 0, n->msix_table, n->msix_pba, &n->bar, e))
        return true;
    bars_fini(n);
    return false;
}

/* The size of a virtual function's BAR 0. */
static uint64_t vf_bar0(const struct nvme *n)
{
    struct nvme vf = { .max_ioqpairs = nvme_virt_queues(n) - 1, .msix_qsize = (uint16_t)nvme_virt_vectors(n) };

    return bar0_layout(&vf);
}

static bool pci_init(struct nvme *n, struct err *e)
{
    if (!nvme_ctrl_bar0(n, e))
        return false;
    pci_intx_init(&n->pci, 1);
    if (n->intel_id) {
        st_le16(n->pci.config, 0x8086);
        st_le16(n->pci.config + 2, 0x5845);
    }
    if (pci_msi_init(&n->pci, 32, true, e) && nvme_cmb_init(n, e) && nvme_boot_init(n, e) && nvme_rpmb_init(n, e) &&
        nvme_virt_init(n, n->virt.max_vfs ? vf_bar0(n) : 0, e))
        return true;
    pci_sriov_fini(&n->pci);
    nvme_rpmb_fini(n);
    nvme_boot_fini(n);
    bars_fini(n);
    return false;
}

static void posts_init(struct nvme *n)
{
    struct domain *dom = n->pci.dev.dom;

    n->events_post = (struct post){ .fn = nvme_told, .arg = n, .dom = dom };
    n->warn_post = (struct post){ .fn = nvme_warned, .arg = n, .dom = dom };
    n->drained_post = (struct post){ .fn = drained_look, .arg = n, .dom = dom };
    nvme_keep_alive_init(n);
    n->thermal_post = (struct post){ .fn = nvme_thermal_changed, .arg = n, .dom = dom };
    nvme_maint_init(n);
    nvme_notice_init(n);
    run_resume_init(&n->resume, dom, resumed, n);
}

static void posts_fini(struct nvme *n)
{
    run_resume_fini(&n->resume);
    loop_post_cancel(domain_loop(n->pci.dev.dom), &n->events_post);
    loop_post_cancel(domain_loop(n->pci.dev.dom), &n->warn_post);
    loop_post_cancel(domain_loop(n->pci.dev.dom), &n->thermal_post);
    loop_post_cancel(domain_loop(n->pci.dev.dom), &n->drained_post);
    timer_fini(&n->keep_alive);
    timer_fini(&n->test_timer);
    nvme_notice_fini(n);
}

static bool own_namespace(struct nvme *n, struct err *e)
{
    if (!n->opt.drive)
        return true;
    char part[24];
    n->ns_opt.nsid = n->ns_opt.nsid ? n->ns_opt.nsid : 1;
    snprintf(part, sizeof part, "/namespace@%x,0", n->ns_opt.nsid);
    return dev_boot_set(&n->pci.dev, n->opt.bootindex, part, e) &&
           nvme_unit_create(n->ss, n, &n->own_unit, &n->opt, &n->ns_opt, &n->pci.dev, e);
}

static void own_namespace_gone(struct nvme *n)
{
    if (!n->own_unit.blk)
        return;
    nvme_unit_leave(&n->own_unit);
    nvme_unit_close(&n->own_unit);
}

bool nvme_ctrl_begin(struct nvme *n, struct nvme_subsys *ss, struct err *e)
{
    n->mdts_field = n->mdts ? n->mdts : NVME_MDTS_MAX;
    n->vectors = n->msix_qsize;
    n->qpairs = n->max_ioqpairs;
    n->cap = nvme_cap_value(n);
    n->thermal.temperature = n->thermal.option;
    n->thermal.since = clock_now(CLOCK_VM);
    n->fw_active = 1;
    memset(n->fw_slot[1], ' ', NVME_FW_REV);           /* the slot that is read-only */
    memcpy(n->fw_slot[1], n->fw_rev ? n->fw_rev : BP_VERSION, MIN(strlen(n->fw_rev ? n->fw_rev : BP_VERSION), NVME_FW_REV));
    n->n_queues = n->max_ioqpairs + 1;
    if (!nvme_queues_init(n, e))
        return false;
    posts_init(n);
    if (nvme_subsys_join(ss, n, e)) {
        if (n->awun)
            atomic_store(&ss->atomic_writes, true);
        return true;
    }
    posts_fini(n);
    nvme_queues_fini(n);
    return false;
}

static void close_queues(void *n) { nvme_queues_close(n); }

void nvme_ctrl_end(struct nvme *n)
{
    domain_call(n->pci.dev.dom, close_queues, n);       /* from here on nothing of a queue posts, */
    nvme_subsys_leave(n);                               /* and nobody of the subsystem */
    posts_fini(n);
    nvme_queues_fini(n);
}

static bool realize_rest(struct nvme *n, struct err *e)
{
    nvme_persist_ctrl(n);
    n->bus = bus_new(&nvme_bus_class, &n->pci.dev, n->pci.dev.obj.id, e);
    if (!n->bus || !own_namespace(n, e))
        return false;
    n->bus->hotplug = true;
    nvme_attach_known(n);
    if (pci_init(n, e))
        return true;
    pci_fini(&n->pci);
    own_namespace_gone(n);
    return false;
}

static bool nvme_realize(struct dev *d, struct err *e)
{
    struct nvme *n = nvme_of(d);
    struct nvme_subsys *ss = n->subsys_link ? &((struct nvme_subsys_dev *)n->subsys_link)->ss : &n->own_ss;

    if (ss == &n->own_ss)
        snprintf(ss->nqn, sizeof ss->nqn, "nqn.2019-08.org.qemu:%s", n->serial);
    if (nvme_persist_open(&n->own_ss, n->state_opt, e) && nvme_ctrl_begin(n, ss, e)) {
        if (realize_rest(n, e))
            return true;
        nvme_ctrl_end(n);
    }
    nvme_persist_close(&n->own_ss);
    return false;
}

void nvme_ctrl_unrealize(struct dev *d)
{
    struct nvme *n = nvme_of(d);

    nvme_sanitize_hand_over(n);
    pci_sriov_fini(&n->pci);
    bars_fini(n);
    nvme_rpmb_fini(n);
    nvme_boot_fini(n);
    nvme_ctrl_end(n);
}

static void nvme_unrealize(struct dev *d)
{
    struct nvme *n = nvme_of(d);

    nvme_state_dirty(n->ss);
    if (n->ss->own)
        nvme_persist_now(n->ss);
    nvme_ctrl_unrealize(d);
    if (n->own_unit.blk)
        nvme_persist_gone(&n->own_unit);
    own_namespace_gone(n);
    nvme_persist_close(&n->own_ss);
}

/* ---- options ---- */

static bool nvme_check(struct obj *o, struct err *e)
{
    struct nvme *n = (struct nvme *)o;

    if (strlen(n->serial) > 20)
        return err_set(e, ERR_VALUE, "serial has %zu characters, the most is 20", strlen(n->serial));
    if (n->cmb.size_mb && !is_pow2(n->cmb.size_mb))
        return err_set(e, ERR_VALUE, "cmb_size_mb is %u, but must be a power of two", n->cmb.size_mb);
    if (n->exclusive_bar && n->pmrdev)
        return err_set(e, ERR_VALUE, "msix-exclusive-bar and pmrdev both need BAR 4");
    if (n->num_queues == 1)
        return err_set(e, ERR_VALUE, "num_queues is 1, but a controller needs an admin queue and an I/O queue");
    if (n->num_queues)
        n->max_ioqpairs = n->num_queues - 1;
    if (n->state_opt && n->subsys_link)
        return err_set(e, ERR_VALUE, "state belongs to the subsystem: give it to nvme-subsys");
    if (n->max_ioqpairs + 1 > n->msix_qsize && n->msix_qsize < 2)
        return err_set(e, ERR_VALUE, "msix_qsize is %u, but a controller needs two vectors at least", n->msix_qsize);
    if (n->model && strlen(n->model) > 40)
        return err_set(e, ERR_VALUE, "model has %zu characters, the most is 40", strlen(n->model));
    if (n->fw_rev && strlen(n->fw_rev) > NVME_FW_REV)
        return err_set(e, ERR_VALUE, "firmware-version has %zu characters, the most is %u", strlen(n->fw_rev), NVME_FW_REV);
    if (n->awupf > n->awun)
        return err_set(e, ERR_VALUE, "atomic.awupf is %u, more than atomic.awun=%u", n->awupf, n->awun);
    return nvme_virt_check(n, e);
}

static const struct prop nvme_props[] = {
    PROP_INCLUDE(struct nvme, opt, blk_front_props),
    PROP_STR(struct nvme, serial, "serial", PF_REQUIRED, "Serial number (20 characters)"),
    PROP_LINK(struct nvme, subsys_link, "subsys", &nvme_subsys_class.obj, 0, "NVM subsystem (nvme-subsys) that the controller belongs to; its own if left out"),
    PROP_STR(struct nvme, state_opt, "state", 0, "File that keeps namespaces, features, counters, zones between runs; with subsys=, give it there"),
    PROP_U32(struct nvme, max_ioqpairs, "max_ioqpairs", 64, 1, 0xfffe, "I/O queue pairs at most"),
    PROP_U32(struct nvme, num_queues, "num_queues", 0, 0, 0xffff, "Queue pairs at most, the admin queue too: the old name of max_ioqpairs + 1"),
    PROP_BOOL(struct nvme, ctratt_mem, "ctratt.mem", false, "mdts does not count metadata"),
    PROP_U16(struct nvme, msix_qsize, "msix_qsize", 65, 1, 2048, "MSI-X vectors"),
    PROP_U8(struct nvme, mdts, "mdts", 7, 0, NVME_MDTS_MAX, "Longest transfer: 2^N pages of 4 KiB; 0: the longest, 2 MiB"),
    PROP_U8(struct nvme, aerl, "aerl", 3, 0, NVME_AER_MAX - 1, "Asynchronous event requests at a time, less one"),
    PROP_U32(struct nvme, aer_max_queued, "aer_max_queued", 64, 0, NVME_EVENTS_MAX, "Asynchronous events that wait for a request"),
    PROP_BOOL(struct nvme, intel_id, "use-intel-id", false, "The PCI identity of Intel's controller (8086:5845)"),
    PROP_U8(struct nvme, zasl, "zoned.zasl", 0, 0, NVME_MDTS_MAX, "Longest zone append: 2^N pages of 4 KiB; 0: as mdts"),
    PROP_BOOL(struct nvme, auto_transition, "zoned.auto_transition", true, "Namespaces may close a zone that was opened by a write"),
    PROP_U8(struct nvme, vsl, "vsl", 7, 0, 16, "Longest verify: 2^N pages of 4 KiB; 0: no limit"),
    PROP_BOOL(struct nvme, dbcs, "dbcs", true, "Doorbell buffers"),
    PROP_BOOL(struct nvme, ocp, "ocp", true, "Log pages and features of the Open Compute Project: extended health, error recovery, firmware that ran"),
    PROP_BOOL(struct nvme, exclusive_bar, "msix-exclusive-bar", false, "The MSI-X table has a BAR of its own (4)"),
    PROP_JSON(struct nvme, queue_map_opt, "iothread-queue-mapping", 0,
              "Threads that share the I/O queues out: [{\"iothread\":ID},...], or with a list \"queues\" of queue numbers in each (JSON only)"),
    PROP_LINK(struct nvme, boot.drive, "boot-drive", &blk_node_class, 0, "Block node with two boot partitions, one after the other"),
    PROP_LINK(struct nvme, rpmb.drive, "rpmb-drive", &blk_node_class, 0,
              "Block node of the replay protected memory block: 4 KiB for its key and counter, then a multiple of 128 KiB"),
    PROP_U32(struct nvme, hmb_pages, "hmb", 0, 0, 65536, "Host memory buffer that the controller would like, in pages of 4 KiB; 0: none"),
    PROP_U32(struct nvme, cmb.size_mb, "cmb_size_mb", 0, 0, 65536, "Controller memory buffer in MiB, a power of two; 0: none"),
    PROP_BOOL(struct nvme, legacy_cmb, "legacy-cmb", false, "The buffer is there without being enabled, as in NVMe 1.3"),
    PROP_LINK(struct nvme, pmrdev, "pmrdev", &memory_backend_class, 0, "Memory of the persistent memory region (-object memory-backend-file)"),
    PROP_BOOL(struct nvme, atomic_dn, "atomic.dn", false, "Write Atomicity Normal at first: only the power fail unit counts"),
    PROP_U16(struct nvme, awun, "atomic.awun", 0, 0, UINT16_MAX, "Blocks of a write that is atomic for other commands, less one"),
    PROP_U16(struct nvme, awupf, "atomic.awupf", 0, 0, UINT16_MAX, "Blocks of a write that is atomic in a power failure, less one"),
    PROP_U16(struct nvme, mqes, "mqes", NVME_QUEUE_ENTRIES - 1, 1, NVME_QUEUE_ENTRIES - 1, "Entries of an I/O queue at most, less one"),
    PROP_STR(struct nvme, model, "model", 0, "Model number (40 characters)"),
    PROP_STR(struct nvme, fw_rev, "firmware-version", 0, "Firmware revision (8 characters)"),
    PROP_U8(struct nvme, virt.max_vfs, "sriov_max_vfs", 0, 0, NVME_CTRL_MAX - 1, "Virtual functions (secondary controllers) at most; needs subsys="),
    PROP_U16(struct nvme, virt.vq_flexible, "sriov_vq_flexible", 0, 0, UINT16_MAX, "Queues of max_ioqpairs that virtual functions can get"),
    PROP_U16(struct nvme, virt.vi_flexible, "sriov_vi_flexible", 0, 0, 2047, "Vectors of msix_qsize that virtual functions can get"),
    PROP_U16(struct nvme, virt.max_vi, "sriov_max_vi_per_vf", 0, 0, 2047, "Vectors of a virtual function at most; 0: an equal part"),
    PROP_U16(struct nvme, virt.max_vq, "sriov_max_vq_per_vf", 0, 0, UINT16_MAX, "Queues of a virtual function at most, with its admin queue; 0: an equal part"),
    PROP_INCLUDE(struct nvme, pci, nvme_runtime_props),
    DEV_IOTHREAD_ROW(struct nvme, iothread),
    PROP_END
};

static const struct pci_class nvme_class = {
    .dev = { .obj = { .name = "nvme", .desc = "NVM Express controller", .base = &pci_dev_class.dev.obj, .size = sizeof(struct nvme),
                      .props = nvme_props, .init = nvme_ctrl_init, .check = nvme_check, .finalize = nvme_ctrl_finalize },
             .cat = "Storage", .plugs_into = &pci_bus_class, .realize = nvme_realize, .unrealize = nvme_unrealize,
             .reset = nvme_ctrl_dev_reset, .co_quiesce = co_nvme_ctrl_quiesce, .state = &nvme_state, .hotplug = true },
    .vendor = 0x1b36, .device = 0x0010, .subvendor = 0x1af4, .subdevice = 0x1100, .class_code = 0x010802, .revision = 2, .express = true,
};
OBJ_CLASS(&nvme_class.dev.obj);
