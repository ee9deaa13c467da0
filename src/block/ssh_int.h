/* SPDX-License-Identifier: MIT */
/* Between the files of the ssh driver: the session (ssh_connect.c), the file transfer protocol in it (sftp.c), the node (ssh.c). Home loop. */
#ifndef BLOCK_SSH_INT_H
#define BLOCK_SSH_INT_H

#include <libssh/libssh.h>
#include "base/log.h"
#include "block/asked.h"
#include "block/driver.h"
#include "loop/sock_place.h"

/* What is used of libssh, which is opened with the first node: it brings a library of ciphers along. */
#define SSH_FUNCTIONS(F) \
    F(ssh_new) F(ssh_free) F(ssh_connect) F(ssh_disconnect) F(ssh_set_blocking) F(ssh_get_status) F(ssh_get_error) F(ssh_get_error_code) \
    F(ssh_options_set) F(ssh_options_get) F(ssh_options_parse_config) F(ssh_string_free_char) F(ssh_session_is_known_server) \
    F(ssh_get_server_publickey) F(ssh_get_publickey_hash) F(ssh_get_fingerprint_hash) F(ssh_clean_pubkey_hash) F(ssh_key_free) \
    F(ssh_userauth_none) F(ssh_userauth_list) F(ssh_userauth_publickey_auto) F(ssh_channel_new) \
    F(ssh_channel_open_session) F(ssh_channel_request_sftp) F(ssh_channel_read_nonblocking) F(ssh_channel_write)
#define SSH_POINTER(f) typeof(&f) f;
extern struct ssh_functions { SSH_FUNCTIONS(SSH_POINTER) } ssh;

enum ssh_key_check { SSH_CHECK_NONE, SSH_CHECK_HASH, SSH_CHECK_KNOWN_HOSTS };
enum ssh_hash { SSH_HASH_MD5, SSH_HASH_SHA1, SSH_HASH_SHA256 };

enum { SFTP_REQUESTS = 64 };            /* that are on their way at a time */

/* The parts of one read or write, which are answered in any order. */
struct sftp_transfer {
    const struct iovec *iov;
    unsigned niov, pending;
    int res;
    struct co_event done;               /* nothing is pending */
};

/* The answer to any other request: its type, and what is behind that in memory of the caller, who frees it. */
struct sftp_reply { uint8_t type; uint8_t *data; uint32_t len; int res; struct co_event done; };

struct sftp_request {
    bool used;
    struct sftp_reply *reply;           /* NULL: a read or write: */
    struct sftp_transfer *of;
    bool write;
    uint64_t off, at;                   /* in the file; in ->of->iov */
    uint32_t len;
};

/* A connection. */
struct sftp {
    const char *name;                   /* for messages: the file's address */
    ssh_session session;                /* NULL: there is none */
    ssh_channel channel;
    struct loop_fd watch;
    struct post turn;                   /* work that is left for the loop's next turn */
    bool connected, has_fsync, has_limits;
    uint32_t max_read, max_write;       /* bytes of one request */
    struct sftp_request request[SFTP_REQUESTS];
    struct blk_asked asked;             /* how many are used */
    uint64_t in_flight;                 /* bytes of reads and writes */
    struct co_queue room;
    uint8_t handle[256];                /* the server's name for the open file (section 6.3 of the protocol) */
    uint32_t handle_len;
    uint8_t *out;                       /* what is to be sent: bytes [out_at, out_len) of it */
    size_t out_at, out_len, out_cap;
    /* the packet that is being received */
    uint8_t head[13];
    uint32_t head_len, left;            /* left: of the packet, behind the head */
    struct sftp_request *into;          /* data goes there */
    uint32_t into_at;
    uint8_t *body;                      /* or it is kept here */
    uint32_t body_len;
    struct sftp_reply version;          /* the answer that has no id */
    char said[128];                     /* what the server said when it last refused something */
    int64_t warned;                     /* when a refusal was last told */
};

struct blk_ssh {
    struct blk_node node;
    json_t *server;
    char *path, *user, *hash;
    int check, hash_type;               /* enum ssh_key_check, ssh_hash */
    struct sock_place place;
    char *name;                         /* its address, and that with how the host is checked */
    char *filename;
    struct sftp sftp;
    bool flush_told;
};

/* Connects, checks the host, logs in; s->sftp has a channel then whose other end is the server of files. Coroutine. */
bool co_ssh_connect(struct blk_ssh *s, struct err *e) MUST_CHECK;

/* ---- sftp.c. Coroutines; 0 or -errno ---- */
/* ->name, ->session (or NULL) and ->channel are set; @fd, which is taken over, is the session's socket, too. */
void sftp_init(struct sftp *l, struct loop *home, int fd);
/* Begins to speak over the channel. */
bool co_sftp_start(struct sftp *l, struct err *e) MUST_CHECK;
/* The connection is of no use any more: all that is on its way fails, and all that comes. */
void sftp_lose(struct sftp *l, const char *why);
/* Ends the connection, with all that is on its way; also one that was never made. */
void sftp_end(struct sftp *l);
/* The whole of it; a read beyond the end of the file finds zeroes. */
int co_sftp_transfer(struct sftp *l, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);

enum { SFTP_READ = 1, SFTP_WRITE = 2, SFTP_CREAT = 8, SFTP_EXCL = 0x20 };       /* section 6.3 */
struct sftp_attrs { bool has_size, has_mode; uint64_t size; uint32_t mode; };
/* The file that the functions below are for from now on. */
int co_sftp_open(struct sftp *l, const char *path, unsigned how);
int co_sftp_stat(struct sftp *l, struct sftp_attrs *out);
int co_sftp_set_size(struct sftp *l, uint64_t size);
int co_sftp_fsync(struct sftp *l);
/* These are for any. */
int co_sftp_stat_path(struct sftp *l, const char *path, struct sftp_attrs *out);
int co_sftp_remove(struct sftp *l, const char *path);

#endif
