/* Runs another program (ip, nft) with a script on its standard input and keeps what it says. */
#ifndef CLI_TOOL_H
#define CLI_TOOL_H

#include "cli/trouble.h"
#include "kit/buf.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <sys/types.h>

/* Runs argv[0] (looked up in PATH plus the sbin directories) and waits for its end, 20 s at
 * most (then it is killed). `input` may be empty; `out` (may be NULL) gets standard output up
 * to its ceiling. OK only if the exit code is 0; else the first line of standard error is the
 * sentence. */
MUST_USE err_t tool_run(const char *const argv[], slice_t input, struct buf *out,
                        struct trouble *why);

/* The path of a program of ours ("weft-supervisor"): WEFT_BIN_DIR, else beside this executable,
 * else in ../libexec/weft. */
MUST_USE err_t tool_own(const char *name, char path[512], struct trouble *why);

#endif
