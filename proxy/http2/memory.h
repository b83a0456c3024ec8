/* Memory for nghttp2. A request makes and drops nine small things in the library; with many requests in a turn the
 * C library's cache per thread (seven of a size) runs dry and every one takes its slow path. Here pieces of a size
 * wait in a list for the next that wants one. */
#ifndef PROXY_HTTP2_MEMORY_H
#define PROXY_HTTP2_MEMORY_H

#include <nghttp2/nghttp2.h>

#define H2_MEMORY_KEPT (64 * 1024) /* bytes at most that wait, per size; there are six sizes */

/* For nghttp2_session_*_new3; of the process, whose only thread uses it. NULL in builds with sanitizers: they want to
 * see every free. */
nghttp2_mem *h2_memory(void);

/* Frees what waits: for tests and the end. */
void h2_memory_release(void);

#endif
