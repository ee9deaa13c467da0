/* SPDX-License-Identifier: MIT */
/* "secret": bytes from an option or a file, plain or in Base64, and then perhaps encrypted with the key that is another secret. */
#include "crypto/secret.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base64.h"
#ifdef CONFIG_NETTLE
#include <nettle/aes.h>
#include <nettle/cbc.h>
#endif

enum { MAX_SECRET = 1 << 20, KEY = 32, BLOCK = 16 };
enum { FORMAT_RAW, FORMAT_BASE64 };
static const char *const format_names[] = { "raw", "base64", NULL };

struct secret { struct obj obj; char *data, *file, *keyid, *iv; int format; bool loaded; uint8_t *bytes; size_t len; };

void secret_wipe(void *p, size_t len)
{
    if (p)
        explicit_bzero(p, len);
}

void secret_free(void *p, size_t len)
{
    secret_wipe(p, len);
    free(p);
}

/* ---- where it comes from ---- */

static bool read_file(struct secret *s, struct err *e)
{
    int fd = open(s->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = 0;
    if (fd < 0)
        return err_os(e, errno, "cannot open '%s'", s->file);
    s->bytes = malloc(MAX_SECRET + 1);
    while (s->bytes && s->len < MAX_SECRET + 1 && (n = read(fd, s->bytes + s->len, MAX_SECRET + 1 - s->len)) > 0)
        s->len += (size_t)n;
    int error = errno;
    close(fd);
    if (!s->bytes || n < 0)
        return err_os(e, s->bytes ? error : ENOMEM, "cannot read '%s'", s->file);
    return s->len <= MAX_SECRET || err_set(e, ERR_VALUE, "'%s' has more than %d bytes", s->file, MAX_SECRET);
}

static bool is_blank(uint8_t c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Base64 to bytes, in a new buffer; blanks and line ends in the text do not count. */
static bool decode(struct secret *s, const char *what, struct err *e)
{
    char *text = malloc(s->len + 1);
    uint8_t *out = malloc(s->len + 1);
    size_t n = 0, k = 0;
    for (size_t i = 0; text && i < s->len; i++)
        if (!is_blank(s->bytes[i]))
            text[k++] = (char)s->bytes[i];
    bool ok = text && out;
    if (ok) {
        text[k] = 0;
        ok = strlen(text) == k && base64_decode(text, out, s->len + 1, &n);
    }
    secret_free(text, text ? k : 0);
    secret_free(s->bytes, s->len);
    s->bytes = out;
    s->len = n;
    return ok || err_set(e, ERR_VALUE, "%s is not valid Base64", what);
}

/* ---- encrypted secrets: AES-256 in CBC mode, padded as PKCS #7 says (RFC 5652, section 6.3) ---- */

static bool unpad(struct secret *s, struct err *e)
{
    uint8_t pad = s->len ? s->bytes[s->len - 1] : 0;
    bool ok = pad && pad <= BLOCK && pad <= s->len;
    for (size_t i = 0; ok && i < pad; i++)
        ok = s->bytes[s->len - 1 - i] == pad;
    if (!ok)
        return err_set(e, ERR_VALUE, "the secret cannot be decrypted: keyid names another key, or iv is another one");
    s->len -= pad;
    return true;
}

static bool decrypt(struct secret *s, struct err *e)
{
    uint8_t iv[BLOCK + 1];
    size_t n = 0, key_len = 0;
    if (!s->iv || !base64_decode(s->iv, iv, sizeof iv, &n) || n != BLOCK)
        return err_set(e, ERR_VALUE, "iv is %d bytes in Base64 where keyid is given", BLOCK);
    uint8_t *key = secret_bytes(s->keyid, &key_len, e);
    if (!key)
        return err_prefix(e, "keyid");
    bool ok = key_len == KEY || err_set(e, ERR_VALUE, "the key in secret '%s' has %zu bytes, not %d", s->keyid, key_len, KEY);
    if (ok && (!s->len || s->len % BLOCK))
        ok = err_set(e, ERR_VALUE, "an encrypted secret is a multiple of %d bytes, not %zu", BLOCK, s->len);
#ifdef CONFIG_NETTLE
    if (ok) {
        struct aes256_ctx ctx;
        aes256_set_decrypt_key(&ctx, key);
        cbc_decrypt(&ctx, (nettle_cipher_func *)aes256_decrypt, BLOCK, iv, s->len, s->bytes, s->bytes);
        secret_wipe(&ctx, sizeof ctx);
        ok = unpad(s, e);
    }
#else
    ok = ok && err_set(e, ERR_NOT_BUILT, "keyid: encrypted secrets need nettle (Debian: nettle-dev)");
    (void)unpad;
#endif
    secret_free(key, key_len);
    return ok;
}

/* ---- the object ---- */

static bool secret_complete(struct obj *o, struct err *e)
{
    struct secret *s = (struct secret *)o;
    if (!s->data == !s->file)
        return err_set(e, ERR_VALUE, s->data ? "data and file exclude each other" : "'data' or 'file' is missing");
    if (s->iv && !s->keyid)
        return err_set(e, ERR_VALUE, "iv has no effect without keyid");
    if (s->file && !read_file(s, e))
        return false;
    if (s->data) {
        s->len = strlen(s->data);
        s->bytes = (uint8_t *)s->data;
        s->data = NULL;             /* nobody reads it back */
    }
    if (s->format == FORMAT_BASE64 && !decode(s, s->file ? s->file : "data", e))
        return false;
    return !s->keyid || decrypt(s, e);
}

static void secret_finalize(struct obj *o)
{
    struct secret *s = (struct secret *)o;
    secret_free(s->bytes, s->len);
}

static const struct prop secret_props[] = {
    PROP_STR(struct secret, data, "data", 0, "The secret itself; others can see a command line: prefer file"),
    PROP_STR(struct secret, file, "file", 0, "File that holds it, to its last byte: a line end counts"),
    PROP_ENUM(struct secret, format, "format", format_names, FORMAT_RAW, "How it is written"),
    PROP_STR(struct secret, keyid, "keyid", 0, "Secret with the 32 bytes of the AES key that this one is encrypted with (AES-256-CBC)"),
    PROP_STR(struct secret, iv, "iv", 0, "Initialisation vector for keyid, 16 bytes in Base64"),
    { .name = "loaded", .doc = "Accepted for compatibility: a secret is read when it is made", .type = PROP_T_BOOL, .flags = PF_HIDDEN,
      PROP_OFF(struct secret, loaded), .def = true },
    PROP_END,
};

const struct obj_class secret_class = {
    .name = "secret", .desc = "A password or a key for others to use", .size = sizeof(struct secret), .props = secret_props,
    .ns = "object", .complete = secret_complete, .finalize = secret_finalize,
};
OBJ_CLASS(&secret_class);

uint8_t *secret_bytes(const char *id, size_t *len, struct err *e)
{
    const struct secret *s = (const struct secret *)obj_lookup(&secret_class, id, e);
    if (!s)
        return NULL;
    uint8_t *p = malloc(s->len + 1);
    if (!p) {
        err_os(e, ENOMEM, "no memory for a secret");
        return NULL;
    }
    memcpy(p, s->bytes, s->len);
    p[s->len] = 0;
    *len = s->len;
    return p;
}
