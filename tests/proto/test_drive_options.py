# SPDX-License-Identifier: MIT
"""-drive takes what the node that it makes takes, and names of files as QEMU's users write them."""
import json
import shutil

import pytest

from lib.images import IMG, MIB, content, create, fill, io_of, node, tool, unlocked
from lib.machine import Machine, QmpError, run
from lib.nvme import NvmeMachine, read

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="no qemu-utils")


@pytest.fixture(name="chain")
def fixture_chain(tmp_path):
    base, top = create(tmp_path / "base.qcow2", 8 * MIB), tmp_path / "it's.qcow2"
    fill(base, (1, 0, 64 * 1024), (2, MIB, 64 * 1024))
    create(top, backing="base.qcow2")
    return base, top


def escaped(text):
    return text.replace(",", ",,")


def shown(tmp_path, *drive):
    """What is at 0, and the nodes, of a disk with these options."""
    with NvmeMachine(tmp_path, "-drive", "if=none,id=d," + ",".join(drive), "-device", "nvme,drive=d,serial=S,addr=1") as m:
        byte = read(io_of(m), 1, 0, 1)[0]
        nodes = {n["node-name"]: n for n in m.qmp.cmd("query-named-block-nodes")}
        m.qmp.cmd("quit")
        m.wait()
    return byte, nodes


def refused(*drive):
    status, _, text = run("-M", "none", "-drive", ",".join(drive))
    assert status == 1
    return text


def test_options_of_the_format(tmp_path, chain):
    base, top = chain
    file = "file=%s,format=qcow2" % top
    assert shown(tmp_path, file, "l2-cache-size=128k", "l2-cache-entry-size=8192", "refcount-cache-size=64k", "lazy-refcounts=on", "overlap-check=all")[0] == 1
    text = refused(file, "cache-size=64k,l2-cache-size=1M")            # they are the format's
    assert "more than cache-size" in text
    text = refused(file, "l2-cachesize=1M")
    assert "unknown option 'l2-cachesize' for -drive" in text and "did you mean 'l2-cache-size'" in text
    assert "unknown option 'l2-cache-size'" in refused("file=%s,format=raw" % base, "l2-cache-size=1M")


def test_the_backing_file(tmp_path, chain):
    base, top = chain
    other = create(tmp_path / "other.qcow2", 8 * MIB)
    fill(other, (7, 0, 4096))
    file = "file=%s,format=qcow2" % top
    byte, nodes = shown(tmp_path, file, "backing.node-name=below", "backing.l2-cache-size=64k")
    assert byte == 1 and nodes["below"]["file"] == str(base) and nodes["below"]["drv"] == "qcow2"
    assert shown(tmp_path, file, "backing.driver=qcow2,backing.file.driver=file,backing.file.filename=%s" % other)[0] == 7
    assert shown(tmp_path, file, "backing.file.filename=%s" % other)[0] == 7       # in the format that the image tells
    assert shown(tmp_path, file, "backing=")[0] == 0
    assert "there is no blockdev with the id 'nosuch'" in refused(file, "backing=nosuch")


@pytest.mark.parametrize("fmt", ["", "format=qcow2", "format=qcow2,read-only=on"])
def test_names_in_json(tmp_path, chain, fmt):
    base, top = chain
    quoted = str(top).replace("'", "\\'")
    for name in ("json:{'driver':'qcow2','file':{'driver':'file','filename':'%s'}}" % quoted,
                 "json:{'driver': 'qcow2', \"file.filename\": \"%s\", 'l2-cache-size': 65536}" % top,
                 "json:" + json.dumps({"driver": "qcow2", "file": {"filename": str(top)}, "backing": {"node-name": "below"}})):
        byte, nodes = shown(tmp_path, "file=" + escaped(name), *filter(None, [fmt]))
        assert byte == 1 and nodes["d"]["ro"] == ("read-only" in fmt), name
        assert len([n for n in nodes.values() if n["drv"] == "qcow2"]) == 2         # not one upon the other
    if fmt:
        assert shown(tmp_path, "file=" + escaped("json:{'driver':'file','filename':'%s'}" % quoted), fmt)[0] == 1
    else:
        assert "JSON: " in refused("file=json:{'driver':")
        assert "unknown property 'nosuch'" in refused("file=" + escaped("json:{'driver':'file','nosuch':1,'filename':'%s'}" % base))


def test_names_in_json_for_the_tool(tmp_path, chain):
    base, top = chain
    name = "json:{'driver':'qcow2','file':{'filename':'%s'}}" % base
    over = tmp_path / "over"
    tool(IMG, "create", "-f", "qcow2", "-b", name, "-F", "qcow2", over)
    assert content(over)[:1] == b"\1"                                   # QEMU reads it, too
    tool(IMG, "convert", "-f", "qcow2", "-O", "raw", over, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == content(over)
    tool(IMG, "compare", "-F", "qcow2", "json:{\"driver\":\"qcow2\",\"file.filename\":\"%s\"}" % top, over)


def test_nodes_without_a_file(tmp_path, chain):
    byte, nodes = shown(tmp_path, "driver=null-co", "size=1M", "read-zeroes=on")
    assert byte == 0 and nodes["d"]["drv"] == "null-co" and nodes["d"]["image"]["virtual-size"] == MIB
    assert shown(tmp_path, "driver=file", "filename=%s" % chain[0])[0] == ord("Q")
    assert "'file' is missing" in refused("format=qcow2,if=none,id=d")
    byte, nodes = shown(tmp_path, "format=qcow2,file.driver=blkdebug,file.node-name=b,file.image.filename=%s" % chain[1])
    assert byte == 1 and nodes["b"]["drv"] == "blkdebug"


def test_copy_on_read(tmp_path, chain):
    top = chain[1]
    tool("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 1 0 4k", top)
    assert '"depth": 0' not in tool("qemu-img", "map", "--output=json", top)
    assert shown(tmp_path, "file=%s,format=qcow2,copy-on-read=on,read-only=on" % top)[0] == 1
    assert '"depth": 0' not in tool("qemu-img", "map", "--output=json", top)
    assert shown(tmp_path, "file=%s,format=qcow2,copy-on-read=on" % top)[0] == 1
    spans = json.loads(unlocked("qemu-img", "map", "--output=json", top).stdout)
    assert (spans[0]["length"], spans[0]["depth"], spans[1]["depth"]) == (65536, 0, 1)


def test_force_share(tmp_path, chain):
    top = chain[1]
    with Machine("-M", "none", "-drive", "if=none,id=w,file=%s,format=qcow2" % top) as m:
        assert not node(m, "w")["ro"]
        text = refused("file=%s,format=qcow2,if=none,read-only=on" % top)
        assert "in use" in text or "lock" in text
        assert "force-share=on needs read-only=on" in refused("file=%s,format=qcow2,force-share=on" % top)
        with Machine("-M", "none", "-drive", "if=none,id=r,file=%s,format=qcow2,read-only=on,force-share=on" % top) as r:
            assert node(r, "r")["ro"]
            with pytest.raises(QmpError):
                r.qmp.cmd("block_resize", **{"node-name": "r", "size": MIB})


def test_aio_is_for_the_file_under_a_filter(tmp_path):
    a = create(tmp_path / "a.qcow2", 8 * MIB)
    fill(a, (5, 0, 64 * 1024))
    assert shown(tmp_path, "format=qcow2,aio=threads", "file=blkdebug::%s" % a)[0] == 5


def test_formats_are_listed_on_one_line():
    status, out, _ = run("-M", "none", "-drive", "format=help")
    line, = [x.split(":")[1].split() for x in out.splitlines() if x.startswith("Supported formats:")]
    assert status == 0 and {"raw", "qcow2", "blkdebug", "nbd"} <= set(line)


def test_a_target_that_exists_is_taken_with_its_mode(tmp_path):
    a, b = create(tmp_path / "a.qcow2", MIB), create(tmp_path / "b.qcow2", MIB)
    with Machine("-M", "none", "-drive", "if=none,id=d,format=qcow2,file=%s" % a) as m:
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("drive-backup", device="d", target=str(b), sync="full", format="qcow2")
        assert "exists already" in e.value.desc and "mode=existing" in e.value.desc and "--force" not in e.value.desc
        m.qmp.cmd("drive-backup", device="d", target=str(b), sync="full", format="qcow2", mode="existing")


def test_a_drive_and_its_node_have_names_of_their_own(tmp_path, chain):
    """id= is the drive, which keeps it when a snapshot puts another node there; node-name= is the node."""
    drive = "if=none,id=d,node-name=n,file=%s,format=qcow2" % chain[0]
    with NvmeMachine(tmp_path, "-drive", drive, "-device", "nvme,drive=d,serial=S,addr=1") as m:
        assert [(b["device"], b["inserted"]["node-name"]) for b in m.qmp.cmd("query-block")] == [("d", "n")]
        m.qmp.cmd("blockdev-snapshot-sync", **{"node-name": "n", "snapshot-file": str(tmp_path / "over"), "snapshot-node-name": "over"})
        assert [(b["device"], b["inserted"]["node-name"]) for b in m.qmp.cmd("query-block")] == [("d", "over")]
        m.qmp.cmd("blockdev-add", **{"driver": "raw", "node-name": "by-drive", "file": "d", "read-only": True})
        assert "over" in [n["file"] for n in m.qmp.cmd("query-named-block-nodes") if n["node-name"] == "by-drive"][0]
        m.qmp.cmd("blockdev-del", **{"node-name": "by-drive"})
        m.qmp.cmd("block-dirty-bitmap-add", node="n", name="below")
        m.qmp.cmd("block-dirty-bitmap-add", node="d", name="above")
        has = {n["node-name"]: [b["name"] for b in n.get("dirty-bitmaps", [])] for n in m.qmp.cmd("query-named-block-nodes")}
        assert has["n"] == ["below"] and has["over"] == ["above"]
        m.qmp.cmd("block-commit", device="d", **{"top-node": "over", "base-node": "n"})
        m.qmp.wait_event("BLOCK_JOB_READY")
        m.qmp.cmd("block-job-complete", device="d")
        m.qmp.wait_event("BLOCK_JOB_COMPLETED")
        assert [(b["device"], b["inserted"]["node-name"]) for b in m.qmp.cmd("query-block")] == [("d", "n")]
        m.qmp.cmd("quit")
        m.wait()


def test_names_of_drives_and_nodes_do_not_clash():
    null = "if=none,format=raw,file.driver=null-co,file.size=1M"
    for more in ("id=a,node-name=x", "id=x", "id=x,node-name=a", "node-name=a"):
        status, _, text = run("-M", "none", "-drive", null + ",id=x,node-name=y", "-drive", null + ",id=z,node-name=a", "-drive", null + "," + more)
        assert status == 1 and "exists already" in text, more


def test_two_files_in_one_name(tmp_path, chain):
    """blkverify:RAW:IMAGE, and its parts by file names alone; the format of a part is named as that of any image."""
    raw, same = tmp_path / "raw", tmp_path / "same"
    raw.write_bytes(b"\5" * MIB)
    same.write_bytes(raw.read_bytes())
    assert shown(tmp_path, "format=raw,file=blkverify:%s:%s" % (raw, same))[0] == 5
    byte, nodes = shown(tmp_path, "format=raw,file.driver=blkverify,file.node-name=v,file.raw.filename=%s,file.test.file.filename=%s" % (raw, same))
    assert byte == 5 and nodes["v"]["drv"] == "blkverify"
    for image in ("file=blkverify:%s:%s" % (raw, chain[0]), "file.driver=blkverify,file.raw.filename=%s,file.test.file.filename=%s" % (raw, chain[0])):
        assert "looks like a qcow2 image, but no format is given" in refused("format=raw", image)
    raw.write_bytes(content(chain[0]))
    parts = "file.driver=blkverify,file.raw.filename=%s,file.test.driver=qcow2,file.test.file.filename=%s" % (raw, chain[0])
    assert shown(tmp_path, "format=raw", parts)[0] == 1
    assert "has no second ':'" in refused("format=raw,file=blkverify:%s" % raw)


def test_the_name_goes_down_to_the_file(tmp_path, chain):
    assert shown(tmp_path, "driver=raw,file.driver=qcow2,file=%s" % escaped(str(chain[1])))[0] == 1
    assert shown(tmp_path, "format=qcow2,file.driver=blkdebug,file.inject-error.0.event=pwritev,file.inject-error.1.event=write_aio,file=%s" % chain[1])[0] == 1
    assert "inject-error.1: unknown" in refused("format=qcow2,file.driver=blkdebug,file.inject-error.0.event=none,file.inject-error.1.evnt=none,file=%s" % chain[1])


def test_native_aio_is_direct(chain):
    assert "aio=native needs cache.direct=on" in refused("if=none,format=qcow2,aio=native,file=%s" % chain[0])
    assert "aio=native needs cache.direct=on" in run("-M", "none", "-blockdev", "file,node-name=f,aio=native,filename=%s" % chain[0])[2]
    with Machine("-M", "none", "-blockdev", "file,node-name=f,aio=native,cache.direct=on,filename=%s" % chain[0]) as m:
        assert node(m, "f")["drv"] == "file"


def test_the_place_of_a_drive():
    """Each has its device, whatever number it has; one option has one value."""
    null = "format=raw,file.driver=null-co,"
    with Machine("-M", "virt", "-S", *sum((["-drive", null + "index=%d,id=d%d" % (i, i)] for i in (4294967294, 3, 300)), [])) as m:
        attached = [b["device"] for b in m.qmp.cmd("query-block") if b.get("qdev")]
    assert sorted(attached) == ["d3", "d300", "d4294967294"], attached
    assert "'index' and 'unit' are two names of one option" in refused(null + "if=none,index=1,unit=2")
    assert "'readonly' and 'read-only' are two names of one option" in refused(null + "if=none,readonly=off,read-only=on")


def test_a_filter_does_not_hide_what_an_image_looks_like(tmp_path):
    path = create(tmp_path / "image", "1M")
    for more in ("file.driver=blkdebug", "file.driver=blklogwrites,file.log.driver=null-co", "throttling.bps-total=1M"):
        status, _, text = run("-M", "none", "-drive", "if=none,id=d,file=%s,%s" % (path, more))
        assert status == 1 and "looks like a qcow2 image" in text, more
