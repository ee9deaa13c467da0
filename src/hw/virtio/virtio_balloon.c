/* SPDX-License-Identifier: MIT */
/* Memory balloon (VIRTIO 1.2, 5.5): options, features, configuration space, life, and what the monitor asks of it. */
#include "hw/virtio/virtio_balloon.h"

#include <stdlib.h>
#include "core/cmd.h"
#include "hw/virtio/virtio_forms.h"
#include "machine/machine.h"

static struct virtio_balloon *the_balloon;      /* a machine has one at most. Main loop */

static struct virtio_balloon *balloon(struct virtio_dev *v) { return (struct virtio_balloon *)v; }
static struct virtio_balloon_config *config(struct virtio_balloon *b) { return (struct virtio_balloon_config *)b->v.config; }

static uint64_t ram_bytes(void)
{
    return machine_current() ? machine_current()->ram_size : 0;
}

static uint64_t actual_bytes(struct virtio_balloon *b)
{
    uint64_t gone = (uint64_t)le32toh(config(b)->actual) << VBALLOON_PFN_SHIFT, all = ram_bytes();

    return gone < all ? all - gone : 0;
}

/* ---- life ---- */

static bool has_opt(const struct virtio_balloon *b, unsigned bit) { return b->feature_opts >> bit & 1; }

static bool balloon_realize(struct virtio_dev *v, struct err *e)
{
    struct virtio_balloon *b = balloon(v);

    if (the_balloon) {
        err_set(e, ERR_BUSY, "the machine has a balloon already: '%s'", the_balloon->v.dev->obj.id);
        return err_hint(e, "one is enough for all of its memory");
    }
    virtio_set_config_size(v, has_opt(b, VIRTIO_BALLOON_F_PAGE_POISON) ? sizeof(struct virtio_balloon_config) :
                           offsetof(struct virtio_balloon_config, free_page_hint_cmd_id));
    b->inflate = virtio_add_queue(v, VBALLOON_QUEUE_SIZE, 0, vballoon_inflated);
    b->deflate = virtio_add_queue(v, VBALLOON_QUEUE_SIZE, 0, vballoon_deflated);
    b->statsq = virtio_add_queue(v, VBALLOON_QUEUE_SIZE, 0, vballoon_stats_received);
    if (has_opt(b, VIRTIO_BALLOON_F_PAGE_REPORTING))
        b->report = virtio_add_queue(v, 32, 0, vballoon_reported);
    timer_init(&b->poll, CLOCK_VM, domain_loop(v->dom), v->dom, vballoon_stats_poll, b);
    vballoon_stats_init(b);
    the_balloon = b;
    return true;
}

static void balloon_unrealize(struct virtio_dev *v)
{
    struct virtio_balloon *b = balloon(v);

    the_balloon = NULL;
    timer_fini(&b->poll);
    vballoon_forget_parts(b);
}

static uint64_t balloon_features(struct virtio_dev *v)
{
    return balloon(v)->feature_opts | BIT64(VIRTIO_BALLOON_F_STATS_VQ);
}

static void balloon_reset(struct virtio_dev *v)
{
    struct virtio_balloon *b = balloon(v);

    vballoon_forget_parts(b);
    config(b)->actual = 0;              /* a guest that starts again has all of its memory */
    if (v->config_size == sizeof(struct virtio_balloon_config))
        config(b)->poison_val = 0;
}

static void balloon_queue_reset(struct virtq *vq)
{
    struct virtio_balloon *b = balloon(vq->v);

    if (vq == b->statsq)
        vballoon_stats_forget(b);
}

static void balloon_restore(struct vq_elem *e)
{
    struct virtio_balloon *b = balloon(e->vq->v);

    if (e->vq == b->statsq && !b->stats_held && virtq_remap(e))
        b->stats_held = e;
    else
        virtq_push(e, 0);
}

static void balloon_resumed(struct virtio_dev *v)
{
    vballoon_stats_arm(balloon(v));
}

static const struct qmp_event_def balloon_events[] = {
    { "BALLOON_CHANGE", "The guest's memory changed its size by its balloon", true, .says = "{actual:int}" },
};
QMP_EVENT(&balloon_events[0]);

/* 5.5.4: the driver writes `actual`, and the poison value before it starts (5.5.6.5.1). */
static void balloon_config_write(struct virtio_dev *v, uint32_t off, uint32_t len, const uint8_t *old)
{
    struct virtio_balloon *b = balloon(v);

    if (off == offsetof(struct virtio_balloon_config, actual) && len == 4) {
        if (memcmp(old, v->config + off, 4))
            qmp_event("BALLOON_CHANGE", json_pack("{s:I}", "actual", (json_int_t)actual_bytes(b)));
    } else if (off != offsetof(struct virtio_balloon_config, poison_val) || len != 4 || !virtio_has(v, VIRTIO_BALLOON_F_PAGE_POISON)) {
        memcpy(v->config + off, old, len);
    }
}

static const struct virtio_model balloon_model = {
    .name = "virtio-balloon", .id = VIRTIO_ID_BALLOON, .pci_legacy_id = 0x1002, .pci_class = 0x00ff00, .realize = balloon_realize,
    .unrealize = balloon_unrealize, .features = balloon_features, .config_write = balloon_config_write, .reset = balloon_reset,
    .queue_reset = balloon_queue_reset, .restore = balloon_restore, .resumed = balloon_resumed,
};

/* ---- options ---- */

static bool interval_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct dev *d = (struct dev *)o;

    if (!d->realized)
        return true;
    domain_lock(d->dom);
    vballoon_stats_arm(balloon(virtio_of_dev(d)));
    domain_unlock(d->dom);
    return true;
}

#define OPTION(bit, name, on, doc) PROP_BIT(struct virtio_balloon, feature_opts, bit, name, on, doc)
static const struct prop balloon_props[] = {
    PROP_INCLUDE(struct virtio_balloon, v.opt, virtio_props),
    OPTION(VIRTIO_BALLOON_F_DEFLATE_ON_OOM, "deflate-on-oom", false, "Let the guest take memory back when it runs out of it"),
    OPTION(VIRTIO_BALLOON_F_PAGE_POISON, "page-poison", true, "Let the guest tell with what it fills free pages"),
    OPTION(VIRTIO_BALLOON_F_PAGE_REPORTING, "free-page-reporting", false, "Let the guest report its free pages, which go back to the host"),
    { .name = "guest-stats-polling-interval", .doc = "Seconds between two questions for the guest's statistics; 0: none are asked",
      .type = PROP_T_U32, PROP_OFF(struct virtio_balloon, stats_interval), .flags = PF_RUNTIME, .changed = interval_changed },
    PROP_JSON(struct virtio_balloon, stats, "guest-stats", PF_READONLY, "What the guest said of its memory last"),
    PROP_END
};

static const struct state_field balloon_fields[] = { STATE_STRUCT(struct virtio_balloon, v, &virtio_dev_state), STATE_END };
static const struct state_desc balloon_state = { .name = "virtio-balloon", .version = 1, .fields = balloon_fields };

static const char *const balloon_names[] = { "virtio-balloon", NULL };
VIRTIO_FORMS(virtio_balloon, struct virtio_balloon, "virtio-balloon", "Memory balloon", "Misc", balloon_props, &balloon_state,
             &balloon_model, balloon_names);

/* ---- monitors: main loop ---- */

static bool present(struct err *e)
{
    if (the_balloon && the_balloon->v.dev->realized)
        return true;
    err_set(e, ERR_NOT_ACTIVE, "No balloon device has been activated");
    return err_hint(e, "-device virtio-balloon-pci");
}

static bool set_target(uint64_t bytes, struct err *e)
{
    uint64_t all = ram_bytes();
    struct virtio_balloon *b;

    if (!present(e))
        return false;
    if (!bytes)
        return err_set(e, ERR_VALUE, "Parameter 'target' expects a size");
    b = the_balloon;
    domain_lock(b->v.dom);
    config(b)->num_pages = htole32((uint32_t)((all - MIN(bytes, all)) >> VBALLOON_PFN_SHIFT));
    virtio_config_changed(&b->v);
    domain_unlock(b->v.dom);
    return true;
}

struct balloon_args { uint64_t value; };
static const struct prop balloon_args[] = {
    { .name = "value", .doc = "Bytes of memory that the guest is to have", .type = PROP_T_U64, .flags = PF_REQUIRED, .max = INT64_MAX,
      PROP_OFF(struct balloon_args, value) },
    PROP_END
};

static json_t *co_balloon(void *args, struct err *e)
{
    return set_target(((struct balloon_args *)args)->value, e) ? json_object() : NULL;
}

static json_t *co_query_balloon(void *args, struct err *e)
{
    return present(e) ? json_pack("{s:I}", "actual", (json_int_t)actual_bytes(the_balloon)) : NULL;
}

static void hmp_balloon(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    uint64_t bytes;

    if (!parse_size(arg, MiB, &bytes))
        str_add(out, "balloon: a size in MiB is missing\n");
    else if (!set_target(bytes, &e))
        str_printf(out, "Error: %s\n", e.msg);
}

static void hmp_info_balloon(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;

    if (!present(&e))
        str_printf(out, "Error: %s\n", e.msg);
    else
        str_printf(out, "balloon: actual=%llu\n", (unsigned long long)(actual_bytes(the_balloon) / MiB));
}

static const struct qmp_cmd balloon_cmds[] = {
    { .name = "balloon", .doc = "Asks the guest to have so much memory", .args = balloon_args, .args_size = sizeof(struct balloon_args),
      .co_run = co_balloon, .ret = qmp_nothing },
    { .name = "query-balloon", .doc = "Memory that the guest has", .co_run = co_query_balloon, .says = "{actual:int}" },
};
QMP_CMD(&balloon_cmds[0]);
QMP_CMD(&balloon_cmds[1]);
static const struct hmp_cmd balloon_hmp[] = {
    { .name = "balloon", .aliases = "", .args = "MIB", .doc = "ask the guest to have so much memory", .co_run = hmp_balloon },
    { .name = "info balloon", .aliases = "", .args = "", .doc = "memory that the guest has", .co_run = hmp_info_balloon },
};
HMP_CMD(&balloon_hmp[0]);
HMP_CMD(&balloon_hmp[1]);
