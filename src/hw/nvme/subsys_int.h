/* SPDX-License-Identifier: MIT */
/* The devices around a controller: nvme-subsys, nvme-ns and its bus. */
#ifndef HW_NVME_SUBSYS_INT_H
#define HW_NVME_SUBSYS_INT_H

#include "hw/nvme/nvme.h"

struct nvme_subsys_dev {
    struct dev dev;                     /* first */
    char *nqn, *state;
    struct nvme_subsys ss;
};
extern const struct dev_class nvme_subsys_class;
extern const struct bus_class nvme_bus_class;

#endif
