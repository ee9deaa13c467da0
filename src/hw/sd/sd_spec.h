/* SPDX-License-Identifier: MIT */
/* SD memory cards (SD Physical Layer Simplified Specification 6.00) and e.MMC devices (JESD84-B51): numbers of both. */
#ifndef HW_SD_SD_SPEC_H
#define HW_SD_SD_SPEC_H

enum { SD_BLOCK = 512, SD_GO_IDLE = 0, SD_SET_BLOCK_COUNT = 23, SD_STOP = 12, SD_APP_CMD = 55 };

/* 4.3 and 4.10.1: CURRENT_STATE */
enum sd_state { SD_IDLE, SD_READY, SD_IDENT, SD_STBY, SD_TRAN, SD_DATA, SD_RCV, SD_PRG, SD_DIS, SD_BTST, MMC_SLP, SD_INACTIVE = 15 };

/* 4.10.1: card status */
#define SD_ST_OUT_OF_RANGE 0x80000000u
#define SD_ST_ADDRESS_ERROR 0x40000000u
#define SD_ST_BLOCK_LEN_ERROR 0x20000000u
#define SD_ST_ERASE_SEQ_ERROR 0x10000000u
#define SD_ST_ERASE_PARAM 0x08000000u
#define SD_ST_WP_VIOLATION 0x04000000u
#define SD_ST_LOCKED 0x02000000u
#define SD_ST_LOCK_FAILED 0x01000000u
#define SD_ST_ILLEGAL_COMMAND 0x00400000u
#define SD_ST_CARD_ECC_FAILED 0x00200000u
#define SD_ST_ERROR 0x00080000u
#define SD_ST_CSD_OVERWRITE 0x00010000u
#define SD_ST_WP_ERASE_SKIP 0x00008000u
#define SD_ST_ERASE_RESET 0x00002000u
#define SD_ST_READY_FOR_DATA 0x00000100u
#define SD_ST_SWITCH_ERROR 0x00000080u          /* e.MMC 6.13 */
#define SD_ST_APP_CMD 0x00000020u
#define SD_ST_AKE_SEQ_ERROR 0x00000008u
#define SD_ST_ERRORS 0xfff9a088u                /* what goes with the response that told it */

/* 5.1: OCR */
#define SD_OCR_VOLTAGES 0x00ff8000u             /* 2.7 to 3.6 V */
#define SD_OCR_READY 0x80000000u
#define SD_OCR_CCS 0x40000000u                  /* block addresses; e.MMC 7.1: sector mode */

#define SD_OCR_S18 0x01000000u                  /* a host asks for 1.8 V, a card goes there */

enum { SD_SEND_TUNING = 19, MMC_SEND_TUNING = 21 };
/* 4.3.10.4: functions of group 1 of CMD6 */
enum sd_access { SD_SDR12, SD_SDR25, SD_SDR50, SD_SDR104, SD_DDR50 };

#define SDSC_MAX (UINT64_C(2) << 30)            /* 2 GiB; larger ones have block addresses */
#define SDHC_UNIT (UINT64_C(512) << 10)         /* 5.3.3: C_SIZE counts these */
#define SDXC_MAX (UINT64_C(2) << 40)

/* e.MMC 7.4: fields of EXT_CSD that mean something here */
enum { EXT_CACHE_FLUSH = 32, EXT_CACHE_CTRL = 33, EXT_POWER_OFF = 34, EXT_PARTITIONING = 160, EXT_SANITIZE = 165, EXT_RPMB_MULT = 168, EXT_USER_WP = 171, EXT_BOOT_WP = 173,
       EXT_ERASE_GROUP_DEF = 175, EXT_BOOT_BUS = 177, EXT_PARTITION_CONFIG = 179, EXT_ERASED_CONT = 181, EXT_BUS_WIDTH = 183, EXT_HS_TIMING = 185,
       EXT_POWER_CLASS = 187, EXT_CMD_SET = 191, EXT_REV = 192, EXT_STRUCTURE = 194, EXT_DEVICE_TYPE = 196, EXT_PART_SWITCH_TIME = 199,
       EXT_SEC_COUNT = 212, EXT_SLEEP_TIME = 217, EXT_WP_GRP = 221, EXT_REL_WR_SEC = 222, EXT_ERASE_TIMEOUT = 223, EXT_ERASE_GRP = 224, EXT_ACC_SIZE = 225,
       EXT_BOOT_MULT = 226, EXT_BOOT_INFO = 228, EXT_SEC_FEATURE = 231, EXT_TRIM_MULT = 232, EXT_INI_TIMEOUT = 241, EXT_CMD6_TIME = 248,
       EXT_CACHE_SIZE = 249, EXT_FW_VERSION = 254, EXT_POWER_OFF_TIME = 247, EXT_SUPPORTED_MODES = 493 };
enum { MMC_ERASE = 0, MMC_TRIM = 1, MMC_DISCARD = 3 };      /* 6.6.9 to 6.6.12: argument of CMD38 */
enum { MMC_BOOT_UNIT = 128 * 1024 };

#endif
