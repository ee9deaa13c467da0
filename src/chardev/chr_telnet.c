/* SPDX-License-Identifier: MIT */
#include "chardev/chr_telnet.h"

enum { SE = 240, BRK = 243, SB = 250, WILL = 251, WONT = 252, DO = 253, DONT = 254, IAC = 255 };
enum { OPT_BINARY = 0, OPT_ECHO = 1, OPT_SGA = 3 };
enum { ST_DATA, ST_IAC, ST_OPTION, ST_SUB, ST_SUB_IAC };

const uint8_t telnet_hello[TELNET_HELLO_LEN] = {
    IAC, WILL, OPT_ECHO, IAC, WILL, OPT_SGA, IAC, WILL, OPT_BINARY, IAC, DO, OPT_BINARY,
};

size_t telnet_strip(struct telnet *t, uint8_t *buf, size_t n, unsigned *breaks)
{
    size_t kept = 0;
    *breaks = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = buf[i];
        switch (t->state) {
        case ST_DATA:
            if (c == IAC)
                t->state = ST_IAC;
            else
                buf[kept++] = c;
            break;
        case ST_IAC:
            t->state = c == SB ? ST_SUB : c >= WILL && c <= DONT ? ST_OPTION : ST_DATA;
            if (c == IAC)
                buf[kept++] = c;
            else if (c == BRK)
                ++*breaks;
            break;
        case ST_OPTION:
            t->state = ST_DATA;
            break;
        case ST_SUB:
            if (c == IAC)
                t->state = ST_SUB_IAC;
            break;
        default:
            t->state = c == SE ? ST_DATA : ST_SUB;
            break;
        }
    }
    return kept;
}
