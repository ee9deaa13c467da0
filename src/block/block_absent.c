/* SPDX-License-Identifier: MIT */
/* Drivers that exist elsewhere: by what else their storage is reached here. */
#include "block/driver.h"

#define ABSENT(type, why) OBJ_ABSENT(type, &blk_node_class, why)
/* Protocols */
ABSENT("gluster", "libgfapi; mount the volume, and write file");
ABSENT("ftp", "a client of FTP; let nbdkit's curl plugin serve the file, and write nbd");
ABSENT("ftps", "a client of FTP; let nbdkit's curl plugin serve the file, and write nbd");
ABSENT("nvme", "a driver of NVMe over VFIO; write host_device");
ABSENT("io_uring", "libblkio; write file or host_device, which use io_uring");
ABSENT("nvme-io_uring", "libblkio; write host_device");
ABSENT("virtio-blk-vfio-pci", "libblkio");
ABSENT("virtio-blk-vhost-vdpa", "libblkio");
ABSENT("vvfat", "a FAT disk that is made of a folder; make an image by mkfs.fat and mcopy");
/* Formats */
ABSENT("qed", "the QED format; convert the image by qemu-img");
ABSENT("dmg", "the DMG format; convert the image by qemu-img");
ABSENT("bochs", "the Bochs format; convert the image by qemu-img");
ABSENT("cloop", "the cloop format; convert the image by qemu-img");
/* Filters */
ABSENT("replication", "COLO");
ABSENT("blkreplay", "record and replay; -icount alone gives the same run twice");
