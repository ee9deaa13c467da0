/* SPDX-License-Identifier: MIT */
/* Configuration pages of a SAS1068: what it is, its phys, what is at them. All are read-only. */
#include "hw/scsi/mptsas.h"

#include "hw/scsi/sas.h"

#define PAGE_MAX 0x110u
enum { ENCLOSURE = 1, RATES_1_5_TO_3_0 = 0x98, DEVICE_PRESENT = 1, DEVICE_MAPPED = 2 };

struct scsi_dev *mptsas_target(const struct mptsas *s, unsigned id) { return id < MPTSAS_PHYS ? scsi_find(s->bus, 0, id, 0, true) : NULL; }
uint64_t mptsas_phy_name(const struct mptsas *s, unsigned phy) { return sas_address(&s->pci, s->sas_address) + phy; }
uint64_t mptsas_target_name(const struct mptsas *s, unsigned id) { return sas_address(&s->pci, s->sas_address) + MPTSAS_PHYS + id; }

static uint32_t target_info(const struct mptsas *s, unsigned id) { return mptsas_target(s, id) ? MPI_DEV_END | MPI_DEV_SSP_TARGET : 0; }
static uint16_t attached_handle(const struct mptsas *s, unsigned phy) { return mptsas_target(s, phy) ? mptsas_target_handle(phy) : 0; }
static uint8_t link_rate(const struct mptsas *s, unsigned phy) { return mptsas_target(s, phy) ? MPI_LINK_3_0 : MPI_LINK_UNKNOWN; }

/* ---- pages: @p is zeroed, and has its header; offsets are the standard's. A status ---- */

static uint32_t manufacturing_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    memcpy(p + 0x04, "SAS1068", 7);
    memcpy(p + 0x14, "B0", 2);
    memcpy(p + 0x1c, "SAS3080X", 8);
    memcpy(p + 0x2c, "L3-00145-00", 11);
    return MPI_SUCCESS;
}

/* Vital product data: an end tag, and nothing before it (PCI 2.2, appendix I). */
static uint32_t manufacturing_1(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x04] = 0x78;
    return MPI_SUCCESS;
}

static uint32_t chip_id(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    st_le16(p + 0x04, PCI_CLASS(s)->device);
    p[0x06] = PCI_CLASS(s)->revision;
    return MPI_SUCCESS;
}

/* Integrated RAID is off. */
static uint32_t manufacturing_4(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x0d] = 0x38;
    return MPI_SUCCESS;
}

static uint32_t manufacturing_5(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    st_le64(p + 0x04, mptsas_phy_name(s, 0));
    return MPI_SUCCESS;
}

static uint32_t io_unit_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    st_le64(p + 0x04, mptsas_phy_name(s, 0));
    return MPI_SUCCESS;
}

static uint32_t io_unit_1(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    st_le32(p + 0x04, 0x41);                    /* a single function, no RAID */
    return MPI_SUCCESS;
}

static uint32_t io_unit_2(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x0c] = (uint8_t)pci_bus_number(s->pci.pbus);
    p[0x0d] = (uint8_t)s->pci.devfn;
    return MPI_SUCCESS;
}

static uint32_t ioc_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    const struct pci_class *k = PCI_CLASS(s);

    st_le16(p + 0x0c, k->vendor);
    st_le16(p + 0x0e, k->device);
    p[0x10] = k->revision;
    st_le32(p + 0x14, k->class_code << 8 | k->revision);
    st_le16(p + 0x18, k->subvendor);
    st_le16(p + 0x1a, k->subdevice);
    return MPI_SUCCESS;
}

/* Answers are not held back to come together. */
static uint32_t ioc_1(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x0d] = 0xff;                             /* the slot's number is not known */
    return MPI_SUCCESS;
}

/* Pages whose counts are zero: volumes, drives in them, enclosure processors, hot spares, general purpose pins, boot settings. */
static uint32_t nothing(struct mptsas *s, uint32_t addr, uint8_t *p) { return MPI_SUCCESS; }

static uint32_t sas_io_unit_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x0c] = MPTSAS_PHYS;
    for (unsigned i = 0; i < MPTSAS_PHYS; i++) {
        uint8_t *phy = p + 0x10 + 0x10 * i;
        phy[0x00] = (uint8_t)i;                 /* its port */
        phy[0x03] = link_rate(s, i);
        st_le32(phy + 0x04, MPI_DEV_END | MPI_DEV_SSP_INITIATOR);
        st_le16(phy + 0x08, attached_handle(s, i));
        st_le16(phy + 0x0a, mptsas_phy_handle(i));
    }
    return MPI_SUCCESS;
}

static uint32_t sas_io_unit_1(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x10] = MPTSAS_PHYS;
    for (unsigned i = 0; i < MPTSAS_PHYS; i++) {
        uint8_t *phy = p + 0x14 + 0x0c * i;
        phy[0x00] = (uint8_t)i;
        phy[0x03] = RATES_1_5_TO_3_0;
        st_le32(phy + 0x04, MPI_DEV_END | MPI_DEV_SSP_INITIATOR);
    }
    return MPI_SUCCESS;
}

static uint32_t sas_io_unit_2(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    p[0x08] = MPTSAS_PHYS;                      /* devices of an enclosure */
    p[0x11] = 0x02;                             /* mapped by where they are attached */
    st_le16(p + 0x12, MPTSAS_PHYS);
    return MPI_SUCCESS;
}

/* The device that a page address means: its handle, 0: none. */
static unsigned device_handle(const struct mptsas *s, uint32_t addr)
{
    unsigned h = addr & 0xffff, last = MPTSAS_PHYS + MPTSAS_PHYS;

    switch (addr >> 28) {
    case 0:                                     /* the next one; 0xffff: the first */
        h = h == 0xffff ? 1 : h + 1;
        while (h <= last && h > MPTSAS_PHYS && !mptsas_target(s, h - MPTSAS_PHYS - 1))
            h++;
        return h <= last ? h : 0;
    case 1:                                     /* of a bus and a target */
        return h < MPTSAS_PHYS && mptsas_target(s, h) ? mptsas_target_handle(h) : 0;
    case 2:
        return h && h <= last && (h <= MPTSAS_PHYS || mptsas_target(s, h - MPTSAS_PHYS - 1)) ? h : 0;
    default:
        return 0;
    }
}

/* SAS address of the device with handle @h: one of our phys, or what is behind it. */
static uint64_t device_name(const struct mptsas *s, unsigned h)
{
    unsigned i = (h - 1) % MPTSAS_PHYS;

    return h <= MPTSAS_PHYS ? mptsas_phy_name(s, i) : mptsas_target_name(s, i);
}

static uint32_t sas_device_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    unsigned h = device_handle(s, addr), i = (h - 1) % MPTSAS_PHYS;
    bool own = h <= MPTSAS_PHYS;

    if (!h)
        return MPI_CONFIG_INVALID_PAGE;
    st_le16(p + 0x08, (uint16_t)i);             /* the slot */
    st_le16(p + 0x0a, ENCLOSURE);
    st_le64(p + 0x0c, device_name(s, h));
    st_le16(p + 0x14, own ? 0 : mptsas_phy_handle(i));
    p[0x16] = p[0x1a] = p[0x22] = (uint8_t)i;   /* phy, target, port */
    st_le16(p + 0x18, (uint16_t)h);
    st_le32(p + 0x1c, own ? MPI_DEV_END | MPI_DEV_SSP_INITIATOR : target_info(s, i));
    st_le16(p + 0x20, own ? DEVICE_PRESENT : DEVICE_PRESENT | DEVICE_MAPPED);
    return MPI_SUCCESS;
}

static uint32_t sas_device_1(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    unsigned h = device_handle(s, addr);

    if (!h)
        return MPI_CONFIG_INVALID_PAGE;
    st_le64(p + 0x0c, device_name(s, h));
    st_le16(p + 0x18, (uint16_t)h);
    p[0x1a] = (uint8_t)((h - 1) % MPTSAS_PHYS);
    return MPI_SUCCESS;
}

static uint32_t sas_device_2(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    unsigned h = device_handle(s, addr);

    if (!h)
        return MPI_CONFIG_INVALID_PAGE;
    st_le64(p + 0x08, device_name(s, h));
    return MPI_SUCCESS;
}

/* By its number, or by its place in the table: they are the same. */
static bool is_phy(uint32_t addr) { return addr >> 28 <= 1 && (addr & 0xffff) < MPTSAS_PHYS; }

static uint32_t sas_phy_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    unsigned i = addr & 0xffff;

    if (!is_phy(addr))
        return MPI_CONFIG_INVALID_PAGE;
    st_le16(p + 0x08, mptsas_phy_handle(i));
    st_le64(p + 0x0c, mptsas_phy_name(s, i));
    st_le16(p + 0x14, attached_handle(s, i));
    st_le32(p + 0x18, target_info(s, i));
    p[0x1c] = p[0x1d] = RATES_1_5_TO_3_0;       /* programmed, and what it is able to */
    return MPI_SUCCESS;
}

/* Errors of the link: there are none. */
static uint32_t sas_phy_1(struct mptsas *s, uint32_t addr, uint8_t *p) { return is_phy(addr) ? MPI_SUCCESS : MPI_CONFIG_INVALID_PAGE; }

static uint32_t no_expander(struct mptsas *s, uint32_t addr, uint8_t *p) { return MPI_CONFIG_INVALID_PAGE; }

static uint32_t enclosure_0(struct mptsas *s, uint32_t addr, uint8_t *p)
{
    uint32_t h = addr & 0xffff;

    if (addr >> 28 == 0 ? h != 0xffff : addr >> 28 != 1 || h != ENCLOSURE)
        return MPI_CONFIG_INVALID_PAGE;
    st_le64(p + 0x0c, mptsas_phy_name(s, 0));
    st_le16(p + 0x16, ENCLOSURE);
    st_le16(p + 0x18, MPTSAS_PHYS);             /* slots */
    return MPI_SUCCESS;
}

/* ---- the table ---- */

struct page { uint8_t type, number, version; uint16_t len; uint32_t (*build)(struct mptsas *, uint32_t addr, uint8_t *p); };
static const struct page pages[] = {
    { MPI_PAGE_MANUFACTURING, 0, 0x00, 0x4c, manufacturing_0 },
    { MPI_PAGE_MANUFACTURING, 1, 0x00, 0x104, manufacturing_1 },
    { MPI_PAGE_MANUFACTURING, 2, 0x00, 0x0c, chip_id },
    { MPI_PAGE_MANUFACTURING, 3, 0x00, 0x0c, chip_id },
    { MPI_PAGE_MANUFACTURING, 4, 0x05, 0x70, manufacturing_4 },
    { MPI_PAGE_MANUFACTURING, 5, 0x02, 0x18, manufacturing_5 },
    { MPI_PAGE_IO_UNIT, 0, 0x00, 0x0c, io_unit_0 },
    { MPI_PAGE_IO_UNIT, 1, 0x02, 0x08, io_unit_1 },
    { MPI_PAGE_IO_UNIT, 2, 0x02, 0x20, io_unit_2 },
    { MPI_PAGE_IO_UNIT, 3, 0x01, 0x08, nothing },
    { MPI_PAGE_IOC, 0, 0x01, 0x1c, ioc_0 },
    { MPI_PAGE_IOC, 1, 0x03, 0x10, ioc_1 },
    { MPI_PAGE_IOC, 2, 0x04, 0x0c, nothing },
    { MPI_PAGE_IOC, 3, 0x00, 0x08, nothing },
    { MPI_PAGE_IOC, 4, 0x00, 0x08, nothing },
    { MPI_PAGE_IOC, 5, 0x00, 0x0c, nothing },
    { MPI_PAGE_IOC, 6, 0x01, 0x3c, nothing },
    { MPI_PAGE_BIOS, 1, 0x03, 0x20, nothing },
    { MPI_EXT_SAS_IO_UNIT, 0, 0x04, 0x10 + 0x10 * MPTSAS_PHYS, sas_io_unit_0 },
    { MPI_EXT_SAS_IO_UNIT, 1, 0x07, 0x14 + 0x0c * MPTSAS_PHYS, sas_io_unit_1 },
    { MPI_EXT_SAS_IO_UNIT, 2, 0x06, 0x14, sas_io_unit_2 },
    { MPI_EXT_SAS_IO_UNIT, 3, 0x00, 0x2c, nothing },
    { MPI_EXT_SAS_EXPANDER, 0, 0x03, 0x24, no_expander },
    { MPI_EXT_SAS_EXPANDER, 1, 0x01, 0x28, no_expander },
    { MPI_EXT_SAS_DEVICE, 0, 0x05, 0x24, sas_device_0 },
    { MPI_EXT_SAS_DEVICE, 1, 0x00, 0x30, sas_device_1 },
    { MPI_EXT_SAS_DEVICE, 2, 0x01, 0x14, sas_device_2 },
    { MPI_EXT_SAS_PHY, 0, 0x01, 0x24, sas_phy_0 },
    { MPI_EXT_SAS_PHY, 1, 0x00, 0x1c, sas_phy_1 },
    { MPI_EXT_ENCLOSURE, 0, 0x01, 0x28, enclosure_0 },
};

static uint32_t find_page(uint8_t type, uint8_t number, const struct page **found)
{
    uint32_t status = MPI_CONFIG_INVALID_TYPE;

    for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
        if (pages[i].type != type)
            continue;
        status = MPI_CONFIG_INVALID_PAGE;
        if (pages[i].number != number)
            continue;
        *found = &pages[i];
        return MPI_SUCCESS;
    }
    return status;
}

static uint32_t read_page(struct mptsas *s, const struct page *k, const uint8_t *f, const uint8_t *header, unsigned header_len)
{
    uint8_t p[PAGE_MAX] = { 0 };
    uint32_t status = k->build(s, ld_le32(f + MPI_CFG_ADDRESS), p);
    struct dma_vec v;

    if (status != MPI_SUCCESS)
        return status;
    memcpy(p, header, header_len);
    dma_vec_init(&v, &s->pci.dma, true);
    if (mptsas_map(s, f, MPI_CFG_SGE, 0, &v))
        vec_from_buf(&v, 0, p, k->len);
    else
        status = MPI_INVALID_SGL;
    dma_unmap(&v, v.len);
    dma_vec_free(&v);
    return status;
}

static uint32_t act(struct mptsas *s, const struct page *k, const uint8_t *f, const uint8_t *header, unsigned header_len)
{
    switch (f[MPI_CFG_ACTION]) {
    case MPI_CFG_PAGE_HEADER: case MPI_CFG_SET_DEFAULT:
        return MPI_SUCCESS;
    case MPI_CFG_READ_CURRENT: case MPI_CFG_READ_DEFAULT: case MPI_CFG_READ_NVRAM:
        return read_page(s, k, f, header, header_len);
    case MPI_CFG_WRITE_CURRENT: case MPI_CFG_WRITE_NVRAM:
        return MPI_CONFIG_CANT_COMMIT;
    default:
        return MPI_CONFIG_INVALID_ACTION;
    }
}

unsigned mptsas_config(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    bool extended = (f[MPI_CFG_HEADER + 3] & 0x0f) == MPI_PAGE_EXTENDED;
    uint8_t type = extended ? f[MPI_CFG_EXT_TYPE] : f[MPI_CFG_HEADER + 3] & 0x0f;
    uint8_t header[8] = { 0 };
    const struct page *k;
    uint32_t status = find_page(type, f[MPI_CFG_HEADER + 2], &k);

    r[MPI_CFG_ACTION] = f[MPI_CFG_ACTION];
    memcpy(r + MPI_CFG_HEADER, f + MPI_CFG_HEADER, 4);
    if (status == MPI_SUCCESS) {
        header[0] = k->version;
        header[1] = (uint8_t)(extended ? 0 : k->len / 4);
        header[2] = k->number;
        header[3] = extended ? MPI_PAGE_EXTENDED : type;
        if (extended) {
            st_le16(header + 4, k->len / 4);
            header[6] = type;
            memcpy(r + MPI_CFG_EXT_LEN, header + 4, 3);
        }
        memcpy(r + MPI_CFG_HEADER, header, 4);
        status = act(s, k, f, header, extended ? 8 : 4);
    }
    st_le16(r + MPI_R_STATUS, (uint16_t)status);
    return MPI_CFGR_SIZE;
}
