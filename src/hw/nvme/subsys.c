/* SPDX-License-Identifier: MIT */
/* What controllers share: their ids, the namespaces, the name. The device `nvme-subsys` is one that several name. */
#include <stdio.h>
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/fdp.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/subsys_int.h"

void nvme_subsys_init(struct nvme_subsys *ss)
{
    pthread_mutex_init(&ss->lock, NULL);
    list_init(&ss->units);
}

void nvme_subsys_fini(struct nvme_subsys *ss)
{
    for (unsigned i = 0; i <= NVME_NS_MAX; i++) {
        if (!ss->ns[i])
            continue;
        nvme_ns_clean(ss->ns[i]);
        range_claims_fini(&ss->ns[i]->ranges);
        free(ss->ns[i]);
        ss->ns[i] = NULL;
    }
    nvme_fdp_fini(&ss->fdp);
    nvme_pel_free(&ss->pel);
    pthread_mutex_destroy(&ss->lock);
}

bool nvme_subsys_join(struct nvme_subsys *ss, struct nvme *n, struct err *e)
{
    pthread_mutex_lock(&ss->lock);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        if (!ss->ctrl[i]) {
            n->cntlid = (uint16_t)i;
            n->ss = ss;
            ss->ctrl[i] = n;
            pthread_mutex_unlock(&ss->lock);
            return true;
        }
    pthread_mutex_unlock(&ss->lock);
    return err_set(e, ERR_BUSY, "the subsystem has %u controllers already, the most that it takes", NVME_CTRL_MAX);
}

void nvme_subsys_leave(struct nvme *n)
{
    if (!n->ss)
        return;
    pthread_mutex_lock(&n->ss->lock);
    n->ss->ctrl[n->cntlid] = NULL;
    pthread_mutex_unlock(&n->ss->lock);
    n->ss = NULL;
}

/* ---- nvme-subsys ---- */

static bool dev_init(struct obj *o, struct err *e)
{
    nvme_subsys_init(&((struct nvme_subsys_dev *)o)->ss);
    return true;
}

static void dev_finalize(struct obj *o) { nvme_subsys_fini(&((struct nvme_subsys_dev *)o)->ss); }

static bool subsys_realize(struct dev *d, struct err *e)
{
    struct nvme_subsys_dev *s = (struct nvme_subsys_dev *)d;

    snprintf(s->ss.nqn, sizeof s->ss.nqn, "nqn.2019-08.org.qemu:%s", s->nqn ? s->nqn : d->obj.id);
    return nvme_fdp_init(&s->ss.fdp, e) && nvme_persist_open(&s->ss, s->state, e);
}

static void subsys_unrealize(struct dev *d) { nvme_persist_close(&((struct nvme_subsys_dev *)d)->ss); }

static bool nqn_check(struct obj *o, struct err *e)
{
    const char *nqn = ((struct nvme_subsys_dev *)o)->nqn;

    return !nqn || strlen(nqn) < 200 || err_set(e, ERR_VALUE, "nqn has %zu characters, the most is 199", strlen(nqn));
}

static const struct prop subsys_props[] = {
    PROP_STR(struct nvme_subsys_dev, nqn, "nqn", 0, "End of the NVMe qualified name, after nqn.2019-08.org.qemu:; the device's id if left out"),
    PROP_STR(struct nvme_subsys_dev, state, "state", 0, "File that keeps namespaces, features, counters, zones between runs"),
    PROP_BOOL(struct nvme_subsys_dev, ss.fdp.on, "fdp", false, "Flexible data placement"),
    PROP_SIZE(struct nvme_subsys_dev, ss.fdp.runs, "fdp.runs", 96 * MiB, MiB, INT64_MAX, "Size of a reclaim unit"),
    PROP_U16(struct nvme_subsys_dev, ss.fdp.nrg, "fdp.nrg", 1, 1, 64, "Reclaim groups"),
    PROP_U16(struct nvme_subsys_dev, ss.fdp.nruh, "fdp.nruh", 0, 0, NVME_PH_MAX, "Reclaim unit handles"),
    PROP_END
};

static const struct state_field subsys_fields[] = {
    STATE_SKIP(struct nvme_subsys_dev, nqn, "an option"), STATE_SKIP(struct nvme_subsys_dev, state, "an option"),
    STATE_CUSTOM(struct nvme_subsys_dev, ss, &nvme_subsys_live), STATE_END
};
static const struct state_desc subsys_state = { .name = "nvme-subsys", .version = 1, .fields = subsys_fields };

const struct dev_class nvme_subsys_class = {
    .obj = { .name = "nvme-subsys", .desc = "NVM subsystem that several controllers share", .base = &dev_obj_class,
             .size = sizeof(struct nvme_subsys_dev), .props = subsys_props, .init = dev_init, .check = nqn_check, .finalize = dev_finalize },
    .cat = "Storage", .realize = subsys_realize, .unrealize = subsys_unrealize,
    .state = &subsys_state,
};
OBJ_CLASS(&nvme_subsys_class.obj);
