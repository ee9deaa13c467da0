/* SPDX-License-Identifier: MIT */
/* Options of QEMU's devices that scripts write and that nothing here stands for: each says why, and what to write in its place. */
#include "core/obj.h"

#define EVERY "leave it out: "
/* The forms of a virtio device on PCI; and on every transport. */
#define VIRTIO_PCI(label, name, why) PROP_ABSENT(label "-pci", name, why); PROP_ABSENT(label "-pci-transitional", name, why); \
    PROP_ABSENT(label "-pci-non-transitional", name, why)
#define VIRTIO_ANY(label, name, why) VIRTIO_PCI(label, name, why); PROP_ABSENT(label "-device", name, why)

/* ---- cards ---- */

PROP_ABSENT("pci-device", "acpi-index", EVERY "names of cards by ACPI are not in this build");
PROP_ABSENT("pci-device", "failover_pair_id", EVERY "standby pairs for migration are not in this build");

#define WINDOWS "a port's windows are as large as whoever numbers the bus makes them"
PROP_ABSENT("pcie-root-port", "bus-reserve", WINDOWS);
PROP_ABSENT("pcie-root-port", "io-reserve", WINDOWS);
PROP_ABSENT("pcie-root-port", "mem-reserve", WINDOWS);
PROP_ABSENT("pcie-root-port", "pref32-reserve", WINDOWS);
PROP_ABSENT("pcie-root-port", "pref64-reserve", WINDOWS);
PROP_ABSENT("pci-bridge", "bus-reserve", WINDOWS);
PROP_ABSENT("pci-bridge", "io-reserve", WINDOWS);
PROP_ABSENT("pci-bridge", "mem-reserve", WINDOWS);
PROP_ABSENT("pci-bridge", "pref32-reserve", WINDOWS);
PROP_ABSENT("pci-bridge", "pref64-reserve", WINDOWS);

#define VHOST EVERY "packets go through this program, not through vhost of the host's kernel"
PROP_ABSENT("netdev-tap", "vhost", VHOST);
PROP_ABSENT("netdev-tap", "vhostfd", VHOST);
PROP_ABSENT("netdev-tap", "vhostfds", VHOST);
PROP_ABSENT("netdev-tap", "vhostforce", VHOST);
PROP_ABSENT("netdev-tap", "poll-us", VHOST);
#define ONE_QUEUE "a tap device has one queue here; queue-pairs=N of the card works on any back end"
PROP_ABSENT("netdev-tap", "queues", ONE_QUEUE);
PROP_ABSENT("netdev-tap", "fds", ONE_QUEUE);

/* ---- disks ---- */

#define DOORBELL EVERY "doorbells never wait for the device, so that there is nothing to choose"
#define SPDM "a responder of SPDM is not in this build"
PROP_ABSENT("nvme", "ioeventfd", DOORBELL);
PROP_ABSENT("nvme", "spdm_port", SPDM);
PROP_ABSENT("nvme", "spdm_trans", SPDM);

PROP_ABSENT("blockdev-file", "drop-cache", EVERY "no image comes here by migration, and nothing else drops the host's cache");
PROP_ABSENT("blockdev-host_device", "drop-cache", EVERY "no image comes here by migration, and nothing else drops the host's cache");
PROP_ABSENT("blockdev-file", "aio-max-batch", EVERY "each loop hands over what it has, once a round");
PROP_ABSENT("blockdev-host_device", "aio-max-batch", EVERY "each loop hands over what it has, once a round");

#define ACCOUNT EVERY "whether failed requests are in a drive's statistics is no choice of the device"
#define LIMITS "block sizes that are not given are the back end's; write physical_block_size=, min_io_size= or opt_io_size= for others"
#define ACCOUNTED(row, cls) row(cls, "account-failed", ACCOUNT); row(cls, "account-invalid", ACCOUNT); row(cls, "backend_defaults", LIMITS)
ACCOUNTED(PROP_ABSENT, "nvme");
ACCOUNTED(PROP_ABSENT, "nvme-ns");
ACCOUNTED(PROP_ABSENT, "scsi-hd");
ACCOUNTED(PROP_ABSENT, "scsi-cd");
ACCOUNTED(PROP_ABSENT, "ide-hd");
ACCOUNTED(PROP_ABSENT, "ide-cd");
ACCOUNTED(VIRTIO_ANY, "virtio-blk");

#define GEOMETRY "a second geometry, of a BIOS, is not in this build; cyls=, heads= and secs= are the disk's"
#define GEOMETRIES(row, cls) row(cls, "lcyls", GEOMETRY); row(cls, "lheads", GEOMETRY); row(cls, "lsecs", GEOMETRY)
GEOMETRIES(PROP_ABSENT, "ide-hd");
GEOMETRIES(PROP_ABSENT, "scsi-hd");
GEOMETRIES(VIRTIO_ANY, "virtio-blk");

#define SEGMENTS EVERY "a request has as many segments as its queue holds, less two"
VIRTIO_ANY("virtio-blk", "scsi", "SCSI commands for a virtio disk went long ago; scsi-block on virtio-scsi-pci passes them through");
VIRTIO_ANY("virtio-blk", "request-merging", EVERY "requests go to the back end one by one");
VIRTIO_ANY("virtio-blk", "seg-max-adjust", SEGMENTS);
VIRTIO_ANY("virtio-blk", "report-discard-granularity", EVERY "the unit of discards is always told; discard_granularity= is another");
VIRTIO_ANY("virtio-scsi", "seg_max_adjust", SEGMENTS);
VIRTIO_ANY("virtio-scsi", "iothread-vq-mapping", "the units of a bus share a thread: iothread= names it, and adapters can have one each");

#define OF_A_MAC "mode pages of a Macintosh are not in this build"
#define OLD_SCSI EVERY "units follow SPC-5"
#define QUIRKS(cls) PROP_ABSENT(cls, "scsi_version", OLD_SCSI); PROP_ABSENT(cls, "quirk_mode_page_apple_vendor", OF_A_MAC); \
    PROP_ABSENT(cls, "quirk_mode_page_truncated", OF_A_MAC); PROP_ABSENT(cls, "quirk_mode_page_vendor_specific_apple", OF_A_MAC); \
    PROP_ABSENT(cls, "quirk_mode_sense_rom_use_dbd", OF_A_MAC)
QUIRKS("scsi-hd");
QUIRKS("scsi-cd");
PROP_ABSENT("scsi-hd", "bios-chs-trans", GEOMETRY);
PROP_ABSENT("ide-hd", "bios-chs-trans", GEOMETRY);
#define OLD_WINDOWS EVERY "an interrupt that waits for old installers is not in this build"
#define NAMES_OF_ATA(cls) PROP_ABSENT(cls, "product", "a drive of ATA has a model= only"); PROP_ABSENT(cls, "vendor", "a drive of ATA has a model= only"); \
    PROP_ABSENT(cls, "win2k-install-hack", OLD_WINDOWS)
NAMES_OF_ATA("ide-hd");
NAMES_OF_ATA("ide-cd");

PROP_ABSENT("sdhci-pci", "uhs", "UHS-I modes are bits of capareg=, with sd-spec-version=3");
PROP_ABSENT("sdhci-pci", "vendor", "controllers that differ by vendor are not in this build");
PROP_ABSENT("sd-card", "spi", "cards on SPI are not in this build");

/* ---- virtio ---- */

#define ON_PCI(label) VIRTIO_PCI(label, "ioeventfd", DOORBELL); VIRTIO_PCI(label, "ats", "a translation service is not in this build")
ON_PCI("virtio-balloon");
ON_PCI("virtio-blk");
ON_PCI("virtio-net");
ON_PCI("virtio-rng");
ON_PCI("virtio-scsi");
ON_PCI("virtio-serial");

#define COALESCED "segments that the host coalesced, and timers for them, are not in this build"
VIRTIO_ANY("virtio-net", "failover", "a card that stands by for another is not in this build");
VIRTIO_ANY("virtio-net", "guest_rsc_ext", COALESCED);
VIRTIO_ANY("virtio-net", "rsc_interval", COALESCED);
VIRTIO_ANY("virtio-net", "tx", EVERY "packets are sent as they come");
