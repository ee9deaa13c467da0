/* SPDX-License-Identifier: MIT */
/* Devices of QEMU's riscv64 board, and those that scripts for other boards name, which are not here: what each would need, and what does its work. */
#include "core/dev.h"

#define ABSENT(name, needs) OBJ_ABSENT(name, &dev_obj_class, needs)
/* The forms of a virtio device. */
#define VIRTIO(label, needs) ABSENT(label "-device", needs); ABSENT(label "-pci", needs); \
    ABSENT(label "-pci-transitional", needs); ABSENT(label "-pci-non-transitional", needs)

/* ---- network ---- */
#define CARD "a model of that network card; virtio-net-pci is one that guests drive"
ABSENT("e1000", CARD);
ABSENT("e1000-82540em", CARD);
ABSENT("e1000-82544gc", CARD);
ABSENT("e1000-82545em", CARD);
ABSENT("e1000e", CARD);
ABSENT("igb", CARD);
ABSENT("i82550", CARD);
ABSENT("i82551", CARD);
ABSENT("i82557a", CARD);
ABSENT("i82557b", CARD);
ABSENT("i82557c", CARD);
ABSENT("i82558a", CARD);
ABSENT("i82558b", CARD);
ABSENT("i82559a", CARD);
ABSENT("i82559b", CARD);
ABSENT("i82559c", CARD);
ABSENT("i82559er", CARD);
ABSENT("i82562", CARD);
ABSENT("i82801", CARD);
ABSENT("ne2k_pci", CARD);
ABSENT("pcnet", CARD);
ABSENT("rocker", CARD);
ABSENT("rtl8139", CARD);
ABSENT("tulip", CARD);
ABSENT("usb-net", CARD);
ABSENT("vmxnet3", CARD);

/* ---- USB ---- */
#define HOST "USB"
ABSENT("ich9-usb-ehci1", HOST);
ABSENT("ich9-usb-uhci1", HOST);
ABSENT("nec-usb-xhci", HOST);
ABSENT("pci-ohci", HOST);
ABSENT("piix3-usb-uhci", HOST);
ABSENT("qemu-xhci", HOST);
ABSENT("usb-ehci", HOST);
ABSENT("usb-audio", HOST);
ABSENT("usb-ccid", HOST);
ABSENT("usb-host", HOST);
ABSENT("usb-hub", HOST);
ABSENT("usb-mtp", HOST);
ABSENT("usb-redir", HOST);
ABSENT("usb-braille", HOST);
#define STICK HOST "; virtio-blk-pci, nvme and scsi-hd are disks"
ABSENT("usb-bot", STICK);
ABSENT("usb-storage", STICK);
ABSENT("usb-uas", STICK);
ABSENT("usb-serial", HOST "; virtserialport is a serial port");
#define TYPED HOST "; a serial console is what there is to type on"
ABSENT("usb-kbd", TYPED);
ABSENT("usb-mouse", TYPED);
ABSENT("usb-tablet", TYPED);
ABSENT("usb-wacom-tablet", TYPED);

/* ---- what a person sees, hears, types ---- */
#define SCREEN "a graphical display; a serial console is what there is to look at"
ABSENT("VGA", SCREEN);
ABSENT("ati-vga", SCREEN);
ABSENT("bochs-display", SCREEN);
ABSENT("cirrus-vga", SCREEN);
ABSENT("qxl", SCREEN);
ABSENT("qxl-vga", SCREEN);
ABSENT("ramfb", SCREEN);
ABSENT("secondary-vga", SCREEN);
ABSENT("vhost-user-gpu", SCREEN);
ABSENT("vhost-user-gpu-pci", SCREEN);
ABSENT("virtio-gpu-device", SCREEN);
ABSENT("virtio-gpu-pci", SCREEN);
ABSENT("virtio-gpu-gl-pci", SCREEN);
ABSENT("virtio-vga", SCREEN);
ABSENT("virtio-vga-gl", SCREEN);
ABSENT("vmware-svga", SCREEN);
#define KEYS "a graphical display; a serial console is what there is to type on"
ABSENT("virtio-keyboard-device", KEYS);
ABSENT("virtio-keyboard-pci", KEYS);
ABSENT("virtio-mouse-device", KEYS);
ABSENT("virtio-mouse-pci", KEYS);
ABSENT("virtio-tablet-device", KEYS);
ABSENT("virtio-tablet-pci", KEYS);
ABSENT("virtio-input-host-device", KEYS);
ABSENT("virtio-input-host-pci", KEYS);
#define SOUND "sound"
ABSENT("AC97", SOUND);
ABSENT("ES1370", SOUND);
ABSENT("hda-duplex", SOUND);
ABSENT("hda-micro", SOUND);
ABSENT("hda-output", SOUND);
ABSENT("ich9-intel-hda", SOUND);
ABSENT("intel-hda", SOUND);
VIRTIO("virtio-sound", SOUND);

/* ---- storage ---- */
#define ADAPTER "a model of that adapter; virtio-scsi-pci, mptsas1068, megasas and lsi53c895a have a SCSI bus"
#define CABLES "a controller for parallel ATA; ich9-ahci has ports for ide-hd and ide-cd"
ABSENT("piix3-ide", CABLES);
ABSENT("piix4-ide", CABLES);
ABSENT("ide-drive", "a word for what it is: ide-hd is a disk, ide-cd a CD-ROM drive");
ABSENT("scsi-disk", "a word for what it is: scsi-hd is a disk, scsi-cd a CD-ROM drive");
ABSENT("am53c974", ADAPTER);
ABSENT("dc390", ADAPTER);
ABSENT("lsi53c810", ADAPTER);
ABSENT("pvscsi", ADAPTER);
#define HOST_TARGET "a SCSI target in the host's kernel; virtio-scsi-pci with scsi-block or scsi-generic passes a host's device through"
VIRTIO("vhost-scsi", HOST_TARGET);
#define PEER_TARGET "a SCSI target of a vhost-user peer; vhost-user-blk-pci has a disk of one, virtio-scsi-pci a bus of its own"
VIRTIO("vhost-user-scsi", PEER_TARGET);

/* ---- folders, memory, sockets ---- */
#define FOLDER "folders of the host; make an image by mkfs.ext4 -d FOLDER, or export it by NFS over -netdev user"
VIRTIO("virtio-9p", FOLDER);
ABSENT("vhost-user-fs-device", FOLDER);
ABSENT("vhost-user-fs-pci", FOLDER);
#define SHARED "memory that machines share"
ABSENT("ivshmem-doorbell", SHARED);
ABSENT("ivshmem-plain", SHARED);
#define PMEM "persistent memory; nvme with pmrdev= has a region of it"
ABSENT("virtio-pmem-device", PMEM);
ABSENT("virtio-pmem-pci", PMEM);
ABSENT("nvdimm", PMEM);
#define DIMM "memory that is added later; give the machine all of it with -m, and take some back by virtio-balloon-pci"
ABSENT("pc-dimm", DIMM);
ABSENT("virtio-mem-device", DIMM);
ABSENT("virtio-mem-pci", DIMM);
#define VSOCK "sockets between guest and host; virtserialport with -chardev socket is one stream"
VIRTIO("vhost-vsock", VSOCK);
VIRTIO("vhost-user-vsock", VSOCK);

/* ---- the rest of virtio and vhost-user ---- */
VIRTIO("virtio-crypto", "a cipher engine; the guest's own kernel has them");
ABSENT("virtio-iommu-device", "an IOMMU");
ABSENT("virtio-iommu-pci", "an IOMMU");
ABSENT("riscv-iommu-pci", "an IOMMU");
#define PEER "that device of a vhost-user peer"
ABSENT("vhost-user-gpio-device", PEER);
ABSENT("vhost-user-gpio-pci", PEER);
ABSENT("vhost-user-i2c-device", PEER);
ABSENT("vhost-user-i2c-pci", PEER);
ABSENT("vhost-user-input", PEER);
ABSENT("vhost-user-input-pci", PEER);

/* ---- the host's devices ---- */
#define VFIO "VFIO; host_device, scsi-block and tap give a guest disks and networks of the host"
ABSENT("vfio-pci", VFIO);
ABSENT("vfio-pci-nohotplug", VFIO);
ABSENT("vfio-platform", VFIO);
#define TPM "a TPM"
ABSENT("tpm-tis-device", TPM);
ABSENT("tpm-crb", TPM);
ABSENT("u2f-passthru", HOST);

/* ---- what small cards do ---- */
ABSENT("ioh3420", "a model of that port; pcie-root-port is one that guests drive");
ABSENT("i82801b11-bridge", "a model of that bridge; pcie-pci-bridge is one that guests drive");
#define WATCHDOG "a watchdog"
ABSENT("i6300esb", WATCHDOG);
ABSENT("vmcoreinfo", "cores of the guest that know its kernel");
