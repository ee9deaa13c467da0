# SPDX-License-Identifier: MIT
"""nvme-cli on controllers that have all there is: every one of its commands that a PCI controller can be asked, what it then tells, and
the status that the specification wants where a controller of this configuration does not have it. One boot for all."""
import re

import pytest

import disklab


class Refused(str):
    """What a command that ends with a status prints of it."""


NO_COMMAND, NO_FIELD, NO_PAGE = Refused("Invalid Command Opcode"), Refused("Invalid Field in Command"), Refused("Invalid Log Page")


def devices(folder):
    args = []
    for name, size in (("data", 64), ("zoned", 16), ("fdp", 16)):
        args += ["-drive", "file=%s,format=raw,if=none,id=%s,discard=unmap" % (disklab.image(folder, name, size * disklab.MIB, b""), name)]
    boot = disklab.image(folder, "boot", 512 << 10, b"boot" * 1000)
    rpmb = disklab.image(folder, "rpmb", 132 << 10, b"")
    return args + ["-drive", "file=%s,format=raw,if=none,id=boot" % boot,
                   "-drive", "file=%s,format=raw,if=none,id=rpmb" % rpmb, "-device", "nvme-subsys,id=ss,nqn=tools,state=%s/state" % folder,
                   "-device", "nvme,id=c,serial=DATA,subsys=ss,ocp=on,hmb=1024,boot-drive=boot,rpmb-drive=rpmb", "-device", "nvme-ns,bus=c,drive=data,nsid=1",
                   "-device", "nvme,id=zn,serial=ZONED", "-device", "nvme-ns,bus=zn,drive=zoned,nsid=1,zoned=on,zoned.zone_size=1M,"
                   "zoned.zone_capacity=768K,zoned.max_open=4,zoned.descr_ext_size=64,zoned.numzrwa=2,zoned.zrwas=64K,zoned.zrwafg=4K",
                   "-device", "nvme-subsys,id=fs,fdp=on,fdp.nruh=4,fdp.nrg=1", "-device", "nvme,id=fc,serial=FDP,subsys=fs",
                   "-device", "nvme-ns,bus=fc,drive=fdp,nsid=1,fdp.ruhs=0;1;2"]


@pytest.fixture(scope="module", name="lab")
def booted(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tools"))
    nodes = ["/dev/nvme%d%s" % (i, n) for i in range(3) for n in ("", "n1")]
    with disklab.lab(folder, *devices(folder), devices=nodes, modules=["nvme"], append="iomem=relaxed") as m:
        m.names = {}
        for key, serial in (("@D", "DATA"), ("@Z", "ZONED"), ("@F", "FDP")):            # the kernel numbers them as they come
            m.names[key] = "/dev/" + m.run("grep -lx '%s *' /sys/class/nvme/nvme*/serial | cut -d/ -f5" % serial)
            m.names[key + "n"] = "/dev/" + m.run("for d in /sys/block/nvme*; do grep -qx '%s *' $d/device/serial && basename $d; done | grep -v c" % serial)
        m.run("head -c 16 /dev/urandom >/tmp/host && nvme set-feature %s -f 0x81 -V 1 -l 16 -d /tmp/host" % m.names["@D"])     # reservations are of a host
        m.run("head -c 4096 /dev/urandom >/tmp/x; head -c 512 /dev/zero >/tmp/s; (echo -n TOOLFW01; head -c 4088 /dev/urandom) >/tmp/fw")
        m.run("(head -c 191 /dev/zero; printf 0123456789abcdef0123456789abcdef; head -c 31 /dev/zero; printf '\\001\\000') >/tmp/key")    # a frame with a key
        yield m


# A command, @D, @Z, @F being controllers and @Dn, @Zn, @Fn their namespaces; a regular expression that its output holds.
TOOLS = [
    # what is there
    ("list", r"DATA +backplane NVMe Controller"), ("list-subsys", r"nqn\.2019-08\.org\.qemu:tools"), ("show-topology", r"pcie .* live"),
    ("id-ctrl @D", r"sn +: DATA"), ("id-ctrl @D -H", r"\[0:0\] : 0x1\tSecurity Send and Receive Supported"),
    ("id-ns @Dn", r"nsze +: 0x20000"), ("id-ns @Dn -H", r"LBA Format  0 : Metadata Size: 0 .* 512 bytes .*in use"), ("id-ns-granularity @D", r"NSG .*: 0x100000"),
    ("id-ns-lba-format @D -i 4", r"lbaf  4"), ("list-ns @D", r"0\]:0x1"), ("list-ns @D --all", r"0\]:0x1"), ("list-ctrl @D", r"present: 1"),
    ("list-ctrl @D -n 1", r"present: 1"), ("nvm-id-ctrl @D", r"vsl +: 7"), ("nvm-id-ns @Dn", r"lbstm : 0"), ("nvm-id-ns-lba-format @D -i 4", r"elbaf  4"),
    ("primary-ctrl-caps @D", r"cntlid +: 0"), ("list-secondary @D", r"Number of Identifiers +: 0"), ("cmdset-ind-id-ns @Dn", r"endgid +: 1"),
    ("ns-descs @Dn", r"csi +: 0"), ("id-nvmset @D", r"nid +: 0"), ("id-uuid @D", r"c194d55b-e094-4794"), ("id-iocs @D", r"Combination\[0\]:7"),
    ("id-domain @D", r"Entries: 0"), ("list-endgrp @D", r"0\]:0x1"), ("get-ns-id @Dn", r"namespace-id:1"),
    ("intel id-ctrl @D", r"sn +: DATA"), ("feat power-mgmt @D", r"Power State"),
    # registers: of a PCI controller they are memory, the commands are those of fabrics
    ("show-regs @D", r"version : 0x20000"), ("show-regs @D -H", r"Boot Partition Support +\(BPS\): Yes"), ("get-reg @D -O 0x1c", r"value: 0x1"),
    ("set-reg @D -O 0xc -V 0", r"Interrupt Vector Mask Set"), ("get-property @D -O 0x1c", NO_COMMAND), ("set-property @D -O 0x14 -V 0x460061", NO_COMMAND),
    # log pages
    ("supported-log-pages @D", r"LID 0xe - LBA Status"), ("get-log @D -i 2 -l 64", r"log-id:2"), ("error-log @D -e 4", r"error_count"),
    ("smart-log @D", r"temperature\s*: 50"), ("fw-log @D", r"afi  : 0x1"), ("changed-ns-list-log @D", r"no ns changed|\[ +0\]"), ("effects-log @D", r"Format NVM"),
    ("effects-log @Z -c 2", r"Zone Append"), ("telemetry-log @D -O /tmp/t && head -c 1 /tmp/t | od -An -tx1", r"07"),
    ("telemetry-log @D -O /tmp/t --controller-init && head -c 1 /tmp/t | od -An -tx1", r"08"), ("endurance-log @D -g 1", r"total_end_grp_cap\s*: 67108864"),
    ("ana-log @D", r"state\s*:\s*optimized"), ("endurance-event-agg-log @D -e 1", r"Entries Available: 0"), ("lba-status-log @D", r"Number of .*Elements: 0"),
    ("persistent-event-log @D -a 1 -l 512", r"Log Identifier: 13"), ("persistent-event-log @D -a 0 -l 4096", r"Set Feature Event"),
    ("persistent-event-log @D -a 2", r"Releasing"), ("fid-support-effects-log @D", r"FID 18"), ("resv-notif-log @D", r"Empty Log Page"),
    ("boot-part-log @D -s 0 -f /tmp/b && head -c 400 /tmp/b", r"bootboot"), ("sanitize-log @D", r"SPROG\) : +65535"),
    ("predictable-lat-log @D -i 1", NO_PAGE), ("pred-lat-event-agg-log @D -e 1", NO_PAGE), ("mi-cmd-support-effects-log @D", NO_PAGE),
    ("media-unit-stat-log @D -d 1", NO_PAGE), ("supported-cap-config-log @D -d 1", NO_PAGE), ("phy-rx-eom-log @D", NO_PAGE),
    ("mgmt-addr-list-log @D", NO_PAGE), ("rotational-media-info-log @D -e 1", NO_PAGE), ("changed-alloc-ns-list-log @D", NO_PAGE),
    ("dispersed-ns-participating-nss-log @D -n 1", NO_PAGE), ("reachability-groups-log @D", NO_PAGE), ("reachability-associations-log @D", NO_PAGE),
    ("host-discovery-log @D", NO_PAGE), ("ave-discovery-log @D", NO_PAGE), ("pull-model-ddc-req-log @D", NO_PAGE),
    # features
    ("get-feature @D -f 1 -H", r"\(HPW\): 1"), ("get-feature @D -f 2 -H", r"\(PS\): 0"), ("get-feature @Dn -f 3 -H", r"\(NUM\): 1"),
    ("get-feature @D -f 4 -H", r"343 K"), ("get-feature @Dn -f 5 -H", r"DULBE\): Disabled"), ("get-feature @D -f 6 -H", r"\(WCE\): Enabled"),
    ("get-feature @D -f 7 -H", r"\(NCQA\): 64"), ("set-feature @D -f 8 -V 0x0102", r"value:0x0*102"), ("get-feature @D -f 8 -H", r"\(THR\): 3"),
    ("set-feature @D -f 8 -V 0", r"value:0"), ("get-feature @D -f 9 -c 1 -H", r"\(IV\): 1"), ("get-feature @D -f 0xa -H", r"\(DN\): False"),
    ("get-feature @D -f 0xb -H", r"Current value"), ("get-feature @D -f 0xc", NO_FIELD), ("get-feature @D -f 0xd -H", r"\(EHM\): Enabled"),
    ("get-feature @D -f 0xe -H", r"using a Set Features"), ("get-feature @D -f 0xf -H", r"\(KATO\)"),
    ("set-feature @D -f 0x10 -V 0x01400150", r"0x01400150"), ("get-feature @D -f 0x10 -H", r"\(TMT1\) : 320"), ("get-feature @D -f 0x15 -H", r"\(LSIRI\)"),
    ("get-feature @D -f 0x16 -H", r"\(LBAFEE\): True"), ("get-feature @D -f 0x17 -H", r"\(NODRM\)"), ("get-feature @D -f 0x18 -c 1 -H", r"\(ENDGID\): 1"),
    ("get-feature @D -f 0x19 -H", r"Profile"), ("get-feature @D -f 0x80 -H", r"\(PBSLC\)"), ("get-feature @D -f 0x81 -l 16 -c 1", r"Current value"),
    ("get-feature @Dn -f 0x82 -H", r"\(RESREL\): False"), ("set-feature @Dn -f 0x83 -V 1", r"value:0x0*1"), ("get-feature @Dn -f 0x83 -H", r"\(PTPL\): True"),
    ("get-feature @Dn -f 0x84 -H", r"No Write Protect"), ("get-feature @D -f 1 -s 3", r"is saveable"),
    ("get-feature @D -f 7 -s 1 -H", r"Default value(?s:.*)\(NCQA\): 64"), ("get-feature @Dn -f 3 -s 1 -H", r"nlb +: 0x20000"),
    ("get-feature @D -f 0x81 -s 1 -l 16 -c 1", r"0000: (00 ){16}"), ("get-feature @D -f 4 -s 2 -H", r"Saved value(?s:.*)343 K"),
    ("get-feature @D -f 0x11", NO_FIELD), ("get-feature @D -f 0x12", NO_FIELD), ("get-feature @D -f 0x13", NO_FIELD), ("get-feature @D -f 0x14", NO_FIELD),
    ("get-feature @D -f 0x1d -c 1", NO_FIELD), ("lm get-cdq @D", NO_FIELD), ("lm set-cdq @D -C 1", NO_FIELD),
    # blocks
    ("write @Dn -s 16 -c 7 -z 4096 -d /tmp/x", r"Success"), ("read @Dn -s 16 -c 7 -z 4096 -d /tmp/y && cmp /tmp/x /tmp/y", r"Success"),
    ("compare @Dn -s 16 -c 7 -z 4096 -d /tmp/x", r"Success"), ("compare @Dn -s 17 -c 7 -z 4096 -d /tmp/x", Refused("Compare Failure")), ("flush @Dn", r"success"),
    ("write-uncor @Dn -s 64 -c 7", r"Success"), ("lba-status-log @D", r"Unrecoverable Logical Blocks: 8"), ("get-lba-status @Dn -n 1 -s 0 -m 64 -a 0x11 -l 128", r"DSLBA: 0x0*40, NLB: 0x0*8,"),
    ("read @Dn -s 64 -c 0 -z 512 -d /tmp/y", Refused("Unrecovered Read Error")), ("write-zeroes @Dn -s 64 -c 7", r"Success"), ("lba-status-log @D", r"Blocks: 0"),
    ("verify @Dn -s 0 -c 7", r"Success"), ("dsm @Dn -d -s 0 -b 8", r"success"), ("copy @Dn --sdlba=128 --slbs=16 --blocks=7", r"success"),
    ("compare @Dn -s 128 -c 7 -z 4096 -d /tmp/x", r"Success"), ("io-passthru @Dn --opcode=0 -n 1", r"Success"), ("admin-passthru @D --opcode=0x18", r"Success"),
    ("io-mgmt-recv @Fn -o 1 -l 64", r"Success"), ("io-mgmt-send @Fn -o 1", r"Success"),
    ("dir-receive @Dn -D 0 -O 1 -H", r"Stream Directive +: supported"), ("dir-send @Dn -D 0 -O 1 -e 1 -T 1", r"result 0"),
    ("dir-receive @Dn -D 1 -O 1 -H", r"\(MSL\): 16"), ("dir-receive @Dn -D 1 -O 3 -r 4", r"result:0x4"), ("dir-receive @Dn -D 1 -O 2 -H", r"Open Stream Count"),
    ("dir-send @Dn -D 1 -O 2", r"result 0"), ("dir-send @Dn -D 0 -O 1 -e 0 -T 1", r"result 0"),
    ("resv-register @Dn --nrkey=5 --rrega=0", r"uccess"), ("resv-acquire @Dn --crkey=5 --rtype=1 --racqa=0", r"uccess"),
    ("resv-report @Dn -e", r"rtype +: 1"), ("resv-release @Dn --crkey=5 --rtype=1 --rrela=0", r"uccess"), ("resv-register @Dn --crkey=5 --rrega=1", r"uccess"),
    # security: replay protected memory, nothing locks
    ("security-recv @D -p 0 -s 0 -x 16 -t 16", r"0000: 00 00 00 00 00 00 00 02 00 ea"), ("security-recv @D -p 1 -s 1 -x 512 -t 512", NO_FIELD),
    ("security-send @D -p 1 -s 1 -f /tmp/s -t 512", NO_FIELD), ("rpmb @Z -c info", r"No RPMB targets"),
    ("rpmb @D -c info", r"Number of RPMB Units"), ("security-send @D -p 0xea -s 1 -t 256 -f /tmp/key", r"Success"),
    ("security-recv @D -p 0xea -s 1 -x 256 -t 256", r"00f0: (00 ){15}01"), ("sed discover @Dn", Refused("IOC_OPAL_DISCOVERY failed")),
    # commands of controllers that are made otherwise
    ("virt-mgmt @D -c 0 -r 0 -a 1 -n 0", NO_COMMAND), ("lockdown @D", NO_COMMAND), ("capacity-mgmt @D -O 0 -i 1", NO_COMMAND),
    ("nvme-mi-recv @D -O 0", NO_COMMAND), ("nvme-mi-send @D -O 0", NO_COMMAND), ("lm create-cdq @D -s 4096 -c 0", NO_COMMAND),
    ("lm delete-cdq @D -C 1", NO_COMMAND), ("lm track-send @D -C 1 -s 0 -m 1", NO_COMMAND), ("lm migration-send @D -s 0", NO_COMMAND),
    ("lm migration-recv @D -o 0 -c 1", r"Invalid Command Opcode"),
    # zones
    ("zns list", r"ZONED"), ("zns id-ctrl @Z", r"zasl"), ("zns id-ns @Zn", r"zdes:"), ("zns report-zones @Zn -d 2", r"nr_zones: 16"),
    ("zns zone-mgmt-recv @Zn -s 0 -l 4096 -z 0", r"Success"), ("zns open-zone @Zn -s 0x800", r"Success"), ("zns close-zone @Zn -s 0x800", r"Success"),
    ("zns set-zone-desc @Zn -s 0x1000 -d /tmp/x", r"Success"), ("zns zone-append @Zn -s 0x1800 -z 4096 -d /tmp/x", r"Success"),
    ("zns finish-zone @Zn -s 0x1800", r"Success"), ("zns open-zone @Zn -s 0x2000 -r", r"Success"), ("write @Zn -s 0x2000 -c 7 -z 4096 -d /tmp/x", r"Success"),
    ("zns zrwa-flush-zone @Zn -l 0x2007", r"Success"), ("zns offline-zone @Zn -s 0x800", Refused("Invalid Zone State Transition")), ("zns reset-zone @Zn -a", r"Success"),
    ("zns zone-mgmt-send @Zn -s 0x800 -z 3", r"Success"), ("zns changed-zone-list @Zn", r"nrzid: +0"), ("zns reset-zone @Zn -s 0x800", r"Success"),
    # placement
    ("fdp configs @F -e 1", r"Number of Reclaim Unit Handles: 4"), ("fdp usage @F -e 1", r"Reclaim Unit Handle 0"), ("fdp stats @F -e 1", r"\(HBMW\): 0"),
    ("fdp events @F -e 1 -E", r""), ("fdp status @Fn", r"Placement Identifier 0"), ("fdp update @Fn -p 0", r"update: Success"),
    ("fdp set-events @Fn -p 0 -e 1 -t 0,1", r"set-events: Success"), ("fdp feature @F -e 1", r"\(FDPE\) +: Yes"),
    # OCP
    ("ocp smart-add-log @D", r"Physical media units written"), ("ocp error-recovery-log @D", r"Panic Count +: 0x0"),
    ("ocp fw-activate-history @D", r"valid entries: +0"), ("ocp clear-fw-activate-history @D", r"Success"),
    ("ocp clear-pcie-correctable-errors @D", r"Success"), ("ocp latency-monitor-log @D", NO_PAGE), ("ocp device-capability-log @D", Refused("C4h Log Page")),
    ("ocp unsupported-reqs-log @D", Refused("C5 Log Page")), ("ocp hardware-component-log @D", Refused("C6")), ("ocp tcg-configuration-log @D", Refused("C7 Log Page")),
    ("ocp telemetry-string-log @D", Refused("C9")), ("ocp get-error-injection @D", Refused("0xc0")), ("ocp eol-plp-failure-mode @D", Refused("0xc2")),
    ("ocp get-enable-ieee1667-silo @D", Refused("0xc4")), ("ocp get-plp-health-check-interval @D", Refused("0x[cC]6")),
    ("ocp get-dssd-async-event-config @D", Refused("0x[cC]9")), ("ocp get-dssd-power-state-feature @D -s 0", Refused("0xC7")),
    ("ocp set-latency-monitor-feature @D", NO_FIELD), ("ocp internal-log @D -t host", Refused("telemetry.bin generated(?s:.*)Unable to read C9")),
    ("ocp set-dssd-power-state-feature @D -p 10", NO_FIELD), ("ocp set-plp-health-check-interval @D -p 10", NO_FIELD), ("ocp set-telemetry-profile @D -t 1", NO_FIELD),
    ("ocp set-dssd-async-event-config @D -e", NO_FIELD), ("ocp set-error-injection @D -n 0", NO_FIELD), ("ocp set-enable-ieee1667-silo @D -e", NO_FIELD),
    # what is Intel's own
    ("intel internal-log @D", NO_COMMAND), ("intel lat-stats @D", Refused("")), ("intel set-bucket-thresholds @D -b 0", r"Unsupported command"),
    ("intel lat-stats-tracking @D -e", NO_FIELD), ("intel market-name @D", NO_PAGE), ("intel smart-log-add @D", NO_PAGE), ("intel temp-stats @D", NO_PAGE),
    # self-test, firmware, namespaces, all of the data gone
    ("device-self-test @D -n 1 -s 1", r"Short Device self-test started"), ("self-test-log @D", r"Current operation  : 0x1"), ("device-self-test @D -n 1 -s 0xf", r"Abort"),
    ("fw-download @D -f /tmp/fw", r"Firmware download success"), ("fw-commit @D -s 2 -a 1", Refused("Requires Controller Level Reset")),
    ("reset @D", r""), ("fw-log @D", r"afi  : 0x2(?s:.*)TOOLFW01"), ("fw-commit @D -s 1 -a 3", r"Success committing"), ("fw-log @D", r"afi  : 0x1"),
    ("format @D -n 1 -l 4 --force", r"Success formatting namespace:1"), ("detach-ns @D -n 1 -c 0", r"detach-ns: [Ss]uccess"), ("delete-ns @D -n 1", r"[Ss]uccess(?s:.*)nsid: *1"),
    ("create-ns @D -s 8192 -c 8192 -f 0", r"[Ss]uccess(?s:.*)nsid: *1"), ("attach-ns @D -n 1 -c 0", r"attach-ns: [Ss]uccess"), ("ns-rescan @D", r""),
    ("sanitize @D -a 2", r""), ("sanitize-log @D", r"\(SCDW10\) +: +0x2"), ("persistent-event-log @D -a 1", r"Establishing"),
    ("persistent-event-log @D -a 0", r"Sanitize CDW10: 2(?s:.*)Change Namespace Event Entry(?s:.*)Format NVM Status: 0(?s:.*)Firmware Commit Event(?s:.*)Host Behavior"),
    ("reset @D", r""), ("subsystem-reset @Z", r""), ("reset @Z", r""),
]

# Of fabrics, and of the tool itself.
ELSEWHERE = {"discover", "connect-all", "connect", "disconnect", "disconnect-all", "config", "gen-hostnqn", "show-hostnqn", "gen-dhchap-key", "check-dhchap-key",
             "gen-tls-key", "check-tls-key", "tls-key", "dim", "version", "help"}


@pytest.mark.parametrize("cmd,text", TOOLS, ids=["%d-%s" % (i, t[0].split(" @")[0].replace(" ", "-")) for i, t in enumerate(TOOLS)])
def test_tool(lab, cmd, text):
    status, out = lab.call("nvme " + re.sub(r"@\w+", lambda name: lab.names[name.group(0)], cmd) + " 2>&1", 60)
    assert re.search(text, out), out
    assert bool(status) == isinstance(text, Refused), (status, out)


@pytest.mark.parametrize("plugin", ("", "zns", "fdp", "ocp", "intel", "lm"))
def test_no_command_is_left_out(lab, plugin):
    """What the tool lists is asked for above, or is not for a controller on PCI."""
    there = re.findall(r"^  ([a-z0-9-]+)  +\S", lab.call("nvme %s help 2>&1" % plugin)[1].split("plugin extensions")[0], re.M)
    words = [cmd.split() for cmd, _ in TOOLS]
    asked = {w[1] for w in words if w[0] == plugin} if plugin else {w[0] for w in words}
    assert len(there) > 6 and not set(there) - asked - ELSEWHERE, set(there) - asked - ELSEWHERE
