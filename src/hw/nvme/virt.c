/* SPDX-License-Identifier: MIT */
/*
 * Primary and secondary controllers (8.26, 5.29): queues and vectors that are flexible move from the physical function to
 * virtual ones. What each has is under the subsystem's lock; a secondary controller looks at it under its own domain's.
 */
#include "hw/nvme/virt.h"

#include "pci/sriov.h"

enum { PRIMARY_ALLOC = 1, SECONDARY_OFFLINE = 7, SECONDARY_ASSIGN = 8, SECONDARY_ONLINE = 9 };
enum { R_QUEUES, R_VECTORS, R_COUNT };
#define VF_OFFSET 1u
#define VF_STRIDE 1u

static struct nvme *vf_of(const struct nvme *n, unsigned i) { return (struct nvme *)pci_sriov_vf(&n->pci, i); }
static struct nvme *primary_of(const struct nvme *vf) { return (struct nvme *)pci_sriov_pf(&vf->pci); }

/* ---- options ---- */

unsigned nvme_virt_queues(const struct nvme *n) { return n->virt.max_vq ? n->virt.max_vq : n->virt.vq_flexible / MAX(n->virt.max_vfs, 1u); }
unsigned nvme_virt_vectors(const struct nvme *n) { return n->virt.max_vi ? n->virt.max_vi : n->virt.vi_flexible / MAX(n->virt.max_vfs, 1u); }

static bool check_amounts(const struct nvme *n, struct err *e)
{
    const struct nvme_virt *v = &n->virt;

    if (v->vq_flexible < 2u * v->max_vfs)
        return err_set(e, ERR_VALUE, "sriov_vq_flexible is %u, but each of %u functions needs two queues", v->vq_flexible, v->max_vfs);
    if (v->vi_flexible < v->max_vfs)
        return err_set(e, ERR_VALUE, "sriov_vi_flexible is %u, but each of %u functions needs a vector", v->vi_flexible, v->max_vfs);
    if (n->max_ioqpairs < v->vq_flexible + 1u)
        return err_set(e, ERR_VALUE, "sriov_vq_flexible is %u, but must leave one of max_ioqpairs=%u", v->vq_flexible, n->max_ioqpairs);
    if (n->msix_qsize < v->vi_flexible + 1u)
        return err_set(e, ERR_VALUE, "sriov_vi_flexible is %u, but must leave one of msix_qsize=%u", v->vi_flexible, n->msix_qsize);
    if (v->max_vq == 1 || v->max_vq > v->vq_flexible)
        return err_set(e, ERR_VALUE, "sriov_max_vq_per_vf is %u, but must be 2 to sriov_vq_flexible=%u", v->max_vq, v->vq_flexible);
    if (v->max_vi > v->vi_flexible)
        return err_set(e, ERR_VALUE, "sriov_max_vi_per_vf is %u, but sriov_vi_flexible is %u", v->max_vi, v->vi_flexible);
    return true;
}

bool nvme_virt_check(const struct nvme *n, struct err *e)
{
    const struct nvme_virt *v = &n->virt;

    if (!v->max_vfs)
        return !(v->vq_flexible || v->vi_flexible || v->max_vq || v->max_vi) ||
               err_set(e, ERR_VALUE, "sriov_ options have no effect without sriov_max_vfs");
    if (!n->subsys_link)
        return err_set(e, ERR_VALUE, "sriov_max_vfs needs a subsystem: -device nvme-subsys,id=ID and subsys=ID");
    return check_amounts(n, e);
}

/* ---- resources; the subsystem's lock held ---- */

struct flexible { uint16_t total, *primary, *next; uint16_t most; };

static struct flexible flexible_of(struct nvme *n, unsigned rt)
{
    struct nvme_virt *v = &n->virt;

    if (rt == R_QUEUES)
        return (struct flexible){ v->vq_flexible, &v->vq, &v->vq_next, (uint16_t)nvme_virt_queues(n) };
    return (struct flexible){ v->vi_flexible, &v->vi, &v->vi_next, (uint16_t)nvme_virt_vectors(n) };
}

static uint16_t *amount(struct nvme_secondary *s, unsigned rt) { return rt == R_QUEUES ? &s->nvq : &s->nvi; }

/* What all secondary controllers but @but have. */
static unsigned assigned(struct nvme *n, unsigned rt, const struct nvme_secondary *but)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < n->virt.max_vfs; i++)
        sum += &n->virt.sec[i] != but ? *amount(&n->virt.sec[i], rt) : 0;
    return sum;
}

/* What the primary controller can use now. */
static void use(struct nvme *n)
{
    n->qpairs = n->max_ioqpairs - n->virt.vq_flexible + n->virt.vq;
    n->vectors = (uint16_t)(n->msix_qsize - n->virt.vi_flexible + n->virt.vi);
}

/* ---- going online and offline ---- */

/* The primary's domain lock held: tells the function to look. */
static void tell(struct nvme *n, unsigned i)
{
    struct nvme *vf = vf_of(n, i);

    if (!vf)
        return;
    atomic_store(&vf->virt_changed, true);
    domain_post(&vf->events_post);
}

static void take_offline(struct nvme *n, unsigned i)
{
    struct nvme_secondary *s = &n->virt.sec[i];
    bool was;

    pthread_mutex_lock(&n->ss->lock);
    was = s->online;
    s->online = false;
    s->times_off += was;
    pthread_mutex_unlock(&n->ss->lock);
    if (was)
        tell(n, i);
}

static void vfs_changed(struct pci_dev *pf, unsigned enabled)
{
    struct nvme *n = (struct nvme *)pf;

    for (unsigned i = enabled; i < n->virt.max_vfs; i++)
        take_offline(n, i);
}

void nvme_virt_reset(struct nvme *n)
{
    struct nvme_virt *v = &n->virt;

    if (!v->max_vfs)
        return;
    for (unsigned i = 0; i < v->max_vfs; i++)
        take_offline(n, i);
    pthread_mutex_lock(&n->ss->lock);
    v->vq = v->vq_next;
    v->vi = v->vi_next;
    pthread_mutex_unlock(&n->ss->lock);
    use(n);
    pci_msix_show(&n->pci, n->vectors);
}

bool nvme_virt_online(struct nvme *n)
{
    struct nvme *pf = primary_of(n);
    struct nvme_secondary s;

    if (!pf)
        return true;
    if (likely(!atomic_exchange(&n->virt_changed, false)))
        return n->online;
    pthread_mutex_lock(&n->ss->lock);
    s = pf->virt.sec[pci_sriov_index(&n->pci)];
    pthread_mutex_unlock(&n->ss->lock);
    if (s.times_off != n->times_off)
        nvme_ctrl_reset(n, false);
    n->times_off = s.times_off;
    n->online = s.online;
    if (s.online) {
        n->qpairs = s.nvq - 1u;
        n->vectors = s.nvi;
        pci_msix_show(&n->pci, n->vectors);
    }
    return n->online;
}

/* ---- Virtualization Management, 5.29 ---- */

static uint16_t primary_alloc(struct nvme *n, unsigned rt, uint16_t nr)
{
    struct flexible f = flexible_of(n, rt);

    if (nr > f.total - assigned(n, rt, NULL))
        return NVME_INVALID_RESOURCES | NVME_DNR;
    *f.next = nr;                       /* has it after its next reset */
    return NVME_OK;
}

static uint16_t assign(struct nvme *n, struct nvme_secondary *s, unsigned rt, uint16_t nr)
{
    struct flexible f = flexible_of(n, rt);

    if (s->online)
        return NVME_INVALID_SEC_STATE | NVME_DNR;
    if (nr > f.most || nr + MAX(*f.primary, *f.next) + assigned(n, rt, s) > f.total)
        return NVME_INVALID_RESOURCES | NVME_DNR;
    *amount(s, rt) = nr;
    return NVME_OK;
}

static uint16_t online(struct nvme *n, unsigned i)
{
    struct nvme_secondary *s = &n->virt.sec[i];

    if (s->nvq < 2 || !s->nvi || i >= pci_sriov_enabled(&n->pci))
        return NVME_INVALID_SEC_STATE | NVME_DNR;
    s->online = true;
    return NVME_OK;
}

/* Which secondary controller @cntlid is; -1: none of this one. */
static int secondary(const struct nvme *n, unsigned cntlid)
{
    for (unsigned i = 0; i < n->virt.max_vfs; i++)
        if (n->virt.sec[i].cntlid == cntlid)
            return (int)i;
    return -1;
}

uint16_t co_nvme_virt_mgmt(struct nvme_req *r)
{
    struct nvme *n = r->n;
    unsigned action = r->cmd.cdw10 & 15, rt = r->cmd.cdw10 >> 8 & 7, cntlid = r->cmd.cdw10 >> 16;
    uint16_t nr = (uint16_t)r->cmd.cdw11, st;
    int i = secondary(n, cntlid);

    if (action != PRIMARY_ALLOC && (action < SECONDARY_OFFLINE || action > SECONDARY_ONLINE))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (action == PRIMARY_ALLOC ? cntlid != n->cntlid : i < 0)
        return NVME_INVALID_CNTLID | NVME_DNR;
    if ((action == PRIMARY_ALLOC || action == SECONDARY_ASSIGN) && rt >= R_COUNT)
        return NVME_INVALID_RESOURCE_ID | NVME_DNR;
    if (action == SECONDARY_OFFLINE) {
        take_offline(n, (unsigned)i);
        return NVME_OK;
    }
    pthread_mutex_lock(&n->ss->lock);
    switch (action) {
    case PRIMARY_ALLOC: st = primary_alloc(n, rt, nr); break;
    case SECONDARY_ASSIGN: st = assign(n, &n->virt.sec[i], rt, nr); break;
    default: st = online(n, (unsigned)i); break;
    }
    pthread_mutex_unlock(&n->ss->lock);
    if (!st && action == SECONDARY_ONLINE)
        tell(n, (unsigned)i);
    else if (!st)
        r->result = nr;
    return st;
}

/* ---- Identify, 5.17.2.11 and 5.17.2.12 ---- */

uint16_t nvme_virt_primary(struct nvme_req *r, uint8_t *b)
{
    struct nvme *n = r->n;
    const uint16_t own[R_COUNT] = { (uint16_t)(n->max_ioqpairs + 1 - n->virt.vq_flexible), (uint16_t)(n->msix_qsize - n->virt.vi_flexible) };

    st_le16(b, n->cntlid);
    if (!n->virt.max_vfs)
        return NVME_OK;
    b[4] = 1 << R_QUEUES | 1 << R_VECTORS;              /* CRT */
    pthread_mutex_lock(&n->ss->lock);
    for (unsigned rt = 0; rt < R_COUNT; rt++) {
        struct flexible f = flexible_of(n, rt);
        uint8_t *p = b + 32 + 32 * rt;

        st_le32(p, f.total);
        st_le32(p + 4, assigned(n, rt, NULL));
        st_le16(p + 8, *f.primary);
        st_le16(p + 10, own[rt]);
        st_le16(p + 12, f.most);
        st_le16(p + 14, 1);                             /* granularity */
    }
    pthread_mutex_unlock(&n->ss->lock);
    return NVME_OK;
}

uint16_t nvme_virt_secondaries(struct nvme_req *r, uint8_t *b)
{
    struct nvme *n = r->n;
    unsigned from = r->cmd.cdw10 >> 16, k = 0;

    pthread_mutex_lock(&n->ss->lock);
    for (unsigned i = 0; i < n->virt.max_vfs; i++) {
        const struct nvme_secondary *s = &n->virt.sec[i];
        uint8_t *p = b + 32 + 32 * k;

        if (s->cntlid < from)
            continue;
        st_le16(p, s->cntlid);
        st_le16(p + 2, n->cntlid);
        p[4] = s->online;
        st_le16(p + 8, (uint16_t)(i + 1));              /* VFN */
        st_le16(p + 10, s->nvq);
        st_le16(p + 12, s->nvi);
        k++;
    }
    pthread_mutex_unlock(&n->ss->lock);
    b[0] = (uint8_t)k;
    return NVME_OK;
}

/* ---- the virtual function ---- */

static uint32_t vf_cfg_read(struct pci_dev *d, uint32_t off, unsigned size, uint32_t val)
{
    struct nvme *n = (struct nvme *)d;

    if (!atomic_load(&n->virt_changed))
        return val;
    nvme_virt_online(n);
    return (uint32_t)ld_le(d->config + off, size);
}

static bool vf_realize(struct dev *d, struct err *e)
{
    struct nvme *n = (struct nvme *)d, *pf = primary_of(n);
    struct nvme_secondary *s = &pf->virt.sec[pci_sriov_index(&n->pci)];

    n->serial = pf->serial;
    n->mdts = pf->mdts;
    n->max_ioqpairs = nvme_virt_queues(pf) - 1;
    n->msix_qsize = (uint16_t)nvme_virt_vectors(pf);
    n->aerl = pf->aerl;
    n->aer_max_queued = pf->aer_max_queued;
    n->zasl = pf->zasl;
    n->vsl = pf->vsl;
    n->awun = pf->awun;
    n->awupf = pf->awupf;
    n->atomic_dn = pf->atomic_dn;
    n->mqes = pf->mqes;
    n->ctratt_mem = pf->ctratt_mem;
    n->dbcs = pf->dbcs;
    n->ocp = pf->ocp;
    n->auto_transition = pf->auto_transition;
    if (!nvme_ctrl_begin(n, pf->ss, e))
        return false;
    nvme_attach_known(n);
    n->pci.cfg_read = vf_cfg_read;
    if (!nvme_ctrl_bar0(n, e)) {
        nvme_ctrl_end(n);
        return false;
    }
    s->cntlid = n->cntlid;
    return true;
}

static const struct prop vf_props[] = { PROP_INCLUDE(struct nvme, pci, nvme_runtime_props), PROP_END };

static const struct pci_class nvme_vf_class = {
    .dev = { .obj = { .name = "nvme-vf", .desc = "Virtual function of an NVM Express controller", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct nvme), .props = vf_props, .init = nvme_ctrl_init, .finalize = nvme_ctrl_finalize,
                      .flags = OCF_INTERNAL },
             .cat = "Storage", .plugs_into = &pci_bus_class, .realize = vf_realize, .unrealize = nvme_ctrl_unrealize,
             .reset = nvme_ctrl_dev_reset, .co_quiesce = co_nvme_ctrl_quiesce, .state = &nvme_state },
    .vendor = 0x1b36, .device = 0x0010, .subvendor = 0x1af4, .subdevice = 0x1100, .class_code = 0x010802, .revision = 2, .express = true,
};
OBJ_CLASS(&nvme_vf_class.dev.obj);

bool nvme_virt_init(struct nvme *n, uint64_t bar0, struct err *e)
{
    const struct pci_sriov_opts o = { .vf_class = &nvme_vf_class.dev, .total = n->virt.max_vfs, .first_offset = VF_OFFSET, .stride = VF_STRIDE,
                                      .changed = vfs_changed };

    n->virt.vq = n->virt.vq_next = n->virt.vq_flexible;         /* at first the primary has all */
    n->virt.vi = n->virt.vi_next = n->virt.vi_flexible;
    use(n);
    if (!n->virt.max_vfs)
        return true;
    if (!pcie_ari_init(&n->pci, 0, 0, e) || !pci_sriov_init(&n->pci, &o, e))
        return false;
    pci_sriov_bar(&n->pci, 0, PCI_BAR_MEM64, bar0);
    return pci_sriov_create(&n->pci, e);
}

/* ---- saved state ---- */

static const struct state_field sec_fields[] = {
    STATE_UINT(struct nvme_secondary, nvq), STATE_UINT(struct nvme_secondary, nvi), STATE_BOOL(struct nvme_secondary, online),
    STATE_UINT(struct nvme_secondary, times_off), STATE_SKIP(struct nvme_secondary, cntlid, "follows from the options"), STATE_END
};
static const struct state_desc sec_state = { .name = "nvme-secondary", .version = 1, .fields = sec_fields };

static bool virt_loaded(void *obj, struct err *e)
{
    struct nvme *n = container_of(obj, struct nvme, virt);

    for (unsigned rt = 0; rt < R_COUNT; rt++) {
        struct flexible f = flexible_of(n, rt);

        for (unsigned i = 0; i < n->virt.max_vfs; i++)
            if (*amount(&n->virt.sec[i], rt) > f.most)
                return err_set(e, ERR_VALUE, "nvme: secondary controller %u has more than it can", i);
        if (*f.primary + assigned(n, rt, NULL) > f.total || *f.next > f.total)
            return err_set(e, ERR_VALUE, "nvme: more flexible resources in use than there are");
    }
    return true;
}

#define OPTION(f) STATE_SKIP(struct nvme_virt, f, "an option")
static const struct state_field virt_fields[] = {
    OPTION(max_vfs), OPTION(vq_flexible), OPTION(vi_flexible), OPTION(max_vq), OPTION(max_vi), STATE_UINT(struct nvme_virt, vq),
    STATE_UINT(struct nvme_virt, vi), STATE_UINT(struct nvme_virt, vq_next), STATE_UINT(struct nvme_virt, vi_next),
    STATE_STRUCTS(struct nvme_virt, sec, &sec_state), STATE_END
};
const struct state_desc nvme_virt_state = { .name = "nvme-virt", .version = 1, .fields = virt_fields, .post_load = virt_loaded };
