/* SPDX-License-Identifier: MIT */
/* World wide names of SAS adapters (SPL-3, 4.2.4: NAA 5). */
#ifndef HW_SCSI_SAS_H
#define HW_SCSI_SAS_H

#include "pci/pci.h"

/* The address of an adapter's first port: as the user wants it, 0: made from where it is plugged. The following ones are its too. */
static inline uint64_t sas_address(const struct pci_dev *d, uint64_t wanted)
{
    return wanted ? wanted : 0x5000c50000000000ull | (uint64_t)pci_bus_number(d->pbus) << 16 | (uint64_t)d->devfn << 8;
}

#endif
