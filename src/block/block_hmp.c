/* SPDX-License-Identifier: MIT */
/* The human monitor's way to block jobs, snapshots and exports. */
#include "block/job.h"
#include "core/cmd.h"

#define HMP(var, nm, ar, ds, qm, ws) static const struct hmp_cmd var = { .name = nm, .args = ar, .doc = ds, .qmp = qm, .words = ws }; HMP_CMD(&var)
HMP(stream, "block_stream", "DEVICE [SPEED [BASE]]", "copies into an image what it finds in its backing chain", "block-stream", "device speed base");
HMP(speed, "block_job_set_speed", "DEVICE SPEED", "limits how fast a job goes, in bytes a second", "block-job-set-speed", "device speed");
HMP(cancel, "block_job_cancel", "[-f] DEVICE", "ends a job; -f: also one that is paused, or ready", "block-job-cancel", "-f:force device");
HMP(complete, "block_job_complete", "DEVICE", "lets a ready job end well", "block-job-complete", "device");
HMP(pause, "block_job_pause", "DEVICE", "lets a job rest", "block-job-pause", "device");
HMP(resume, "block_job_resume", "DEVICE", "ends a job's rest", "block-job-resume", "device");
HMP(mirror, "drive_mirror", "[-n] [-f] DEVICE TARGET [FORMAT]", "keeps a new image like a drive; -n: it exists; -f: all of the chain", "drive-mirror",
    "-n:mode=existing -f:sync=full device target format sync=top");
HMP(backup, "drive_backup", "[-n] [-c] DEVICE TARGET [FORMAT]", "copies what a drive holds now; -n: the image exists; -c: compressed", "drive-backup",
    "-n:mode=existing -c:compress device target format sync=full");
HMP(snapshot, "snapshot_blkdev", "[-n] DEVICE FILE [FORMAT]", "puts a new image on top of a drive's; -n: it exists", "blockdev-snapshot-sync",
    "-n:mode=existing device snapshot-file format");
HMP(internal, "snapshot_blkdev_internal", "DEVICE NAME", "makes a snapshot inside an image", "blockdev-snapshot-internal-sync", "device name");
HMP(delete, "snapshot_delete_blkdev_internal", "DEVICE NAME [ID]", "deletes a snapshot inside an image", "blockdev-snapshot-delete-internal-sync",
    "device name id");
HMP(throttle, "block_set_io_throttle", "DEVICE BPS BPS_RD BPS_WR IOPS IOPS_RD IOPS_WR", "limits bytes and requests a second", "block_set_io_throttle",
    "device bps bps_rd bps_wr iops iops_rd iops_wr");
HMP(nbd_add, "nbd_server_add", "[-w] DEVICE [NAME]", "exports a node to NBD clients; -w: they may write", "nbd-server-add", "-w:writable device name");
HMP(nbd_remove, "nbd_server_remove", "[-f] NAME", "ends an export; -f: though it is in use", "nbd-server-remove", "-f:mode=hard name");
HMP(nbd_stop, "nbd_server_stop", "", "disconnects all NBD clients", "nbd-server-stop", "");
HMP(blockstats, "info blockstats", "", "requests of every user of a block node", "query-blockstats", "");

static void co_info_jobs(const char *arg, struct str *out)
{
    bool any = false;
    for (struct job *j = NULL; (j = job_next(j)); any = true)
        str_printf(out, "Type %s, device %s: %s, completed %llu of %llu bytes, speed limit %llu bytes/s\n", job_type(j), j->id, job_status_name(j->status),
                   (unsigned long long)j->done, (unsigned long long)j->total, (unsigned long long)j->speed);
    if (!any)
        str_add(out, "No active jobs\n");
}
static const struct hmp_cmd info_jobs = { "info block-jobs", "", "", "jobs of the block layer", co_info_jobs };
HMP_CMD(&info_jobs);
