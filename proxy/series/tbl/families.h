/* Every family of time series that a pod's processes count: one table.
 *
 *   SERIES_COUNTER  (id, "name", "labels", "help")   one value that only grows
 *   SERIES_GAUGE    (id, "name", "labels", "help")   one value that moves; 0 at a new generation
 *   SERIES_HISTOGRAM(id, "name", "labels", "help")   latencies; values as below
 *
 * `labels` is the canonical order of the label names, without spaces; a label whose value is empty is
 * left out. Names and labels are Linkerd's where Linkerd has them (docs/metrics.md tells the differences);
 * Weft's own begin with weft_. The position in this table is the family's number on the wire (message
 * `series`): lines are only ever added at the end.
 *
 * Values of a histogram on the wire and in the shared table (struct series_histogram in series.h):
 *   [0..25]   observations per bucket of SERIES_LE below, each bucket alone, the last is +Inf
 *   [26]      sum of all observations in microseconds
 *   [27..127] the fine histogram: observations per log-linear bucket of microseconds, each bucket alone
 * Trailing zeros may be left out. The number of observations is the sum of [0..25].
 *
 *   SERIES_LE(ms)   upper bounds, inclusive, in milliseconds: Linkerd's
 */
#ifndef SERIES_COUNTER
#define SERIES_COUNTER(id, name, labels, help)
#endif
#ifndef SERIES_GAUGE
#define SERIES_GAUGE(id, name, labels, help)
#endif
#ifndef SERIES_HISTOGRAM
#define SERIES_HISTOGRAM(id, name, labels, help)
#endif
#ifndef SERIES_LE
#define SERIES_LE(ms)
#endif

/* Who talks to whom about what. Outbound series carry authority, server_id, dst_*; inbound ones carry
 * client_id and srv_port. */
#define L_PEERS                                                                                    \
    "direction,authority,target_addr,tls,no_tls_reason,client_id,server_id,dst_namespace,"         \
    "dst_service,dst_port,dst_pod,srv_port,route_name"
#define L_TCP                                                                                      \
    "direction,peer,target_addr,tls,no_tls_reason,client_id,server_id,dst_namespace,dst_service,"  \
    "dst_port,dst_pod,srv_port"
#define L_ROUTE                                                                                    \
    "parent_kind,parent_namespace,parent_name,parent_port,route_kind,route_namespace,route_name"

SERIES_COUNTER  (REQUEST,          "request_total",       L_PEERS, "Requests, counted when their head has been read.")
SERIES_COUNTER  (RESPONSE,         "response_total",      L_PEERS ",classification,status_code,grpc_status,error", "Responses, counted at their end.")
SERIES_HISTOGRAM(RESPONSE_LATENCY, "response_latency_ms", L_PEERS ",status_code", "Time from the request's head to the first byte of the response's body (or its end), in milliseconds.")
SERIES_COUNTER  (TCP_OPEN,         "tcp_open_total",      L_TCP, "Connections opened.")
SERIES_GAUGE    (TCP_OPEN_NOW,     "tcp_open_connections",L_TCP, "Connections that are open now.")
SERIES_COUNTER  (TCP_CLOSE,        "tcp_close_total",     L_TCP ",errno", "Connections closed.")
SERIES_COUNTER  (TCP_READ,         "tcp_read_bytes_total",  L_TCP, "Bytes read from the peer.")
SERIES_COUNTER  (TCP_WRITE,        "tcp_write_bytes_total", L_TCP, "Bytes written to the peer.")
SERIES_COUNTER  (RETRY_REQUESTS,   "outbound_http_route_retry_requests_total",       L_ROUTE, "Retry attempts that were sent.")
SERIES_COUNTER  (RETRY_SUCCESSES,  "outbound_http_route_retry_successes_total",      L_ROUTE, "Exchanges that ended well thanks to a retry.")
SERIES_COUNTER  (RETRY_LIMIT,      "outbound_http_route_retry_limit_exceeded_total", L_ROUTE, "Retries not made because the route's limit was reached.")
SERIES_COUNTER  (RETRY_OVERFLOW,   "outbound_http_route_retry_overflow_total",       L_ROUTE, "Retries not made because the service's budget was empty.")
SERIES_COUNTER  (RETRY_REFUSED,    "weft_retry_refused_total",  L_ROUTE ",reason", "Attempts that failed and were not made again, by the stable reason.")
SERIES_COUNTER  (RETRY_DECISIONS,  "weft_retry_decisions_total","service,verdict,reason", "Verdicts of weft-retry.")
SERIES_COUNTER  (MESH_ANSWERS,     "weft_mesh_answers_total",   "direction,code", "Answers made by the mesh itself, not by an application, by their stable code.")
SERIES_COUNTER  (DETECT_RESULTS,   "weft_detect_results_total", "direction,result", "What protocol detection found.")
SERIES_HISTOGRAM(DETECT_DELAY,     "weft_detect_delay_ms",      "direction,result", "Time from accept to a known protocol, in milliseconds.")
SERIES_COUNTER  (HANDSHAKES,       "weft_handshakes_total",     "role,result", "TLS handshakes by role (client, server) and result (ok or a stable code).")
SERIES_COUNTER  (BAD_INPUT,        "weft_bad_input_total",      "kind", "Input from outside that was refused as malformed.")
SERIES_COUNTER  (CONNECTION_CLOSE, "weft_connection_close_total", "side,reason", "Closed connections by the one named reason.")
SERIES_COUNTER  (FOLDED,           "weft_series_folded_total",  "family", "Requests for a new series that were folded into the family's folded=\"true\" series because the table was full.")
SERIES_COUNTER  (RATE_LIMITED,     "inbound_http_local_ratelimit_total", "srv_port,ratelimit_group,ratelimit_kind,ratelimit_namespace,ratelimit_name,ratelimit_scope", "Requests refused by a rate limit of the application's port.")
SERIES_COUNTER  (FAULTS,           "weft_faults_total",         L_ROUTE ",fault", "Requests delayed or failed because a route says so.")
SERIES_COUNTER  (HEDGES,           "weft_hedge_total",          L_ROUTE ",result", "Attempts beside a late one: sent, and what became of them.")
SERIES_COUNTER  (MIRRORS,          "weft_mirror_total",         L_ROUTE ",result", "Copies of requests for mirrors, by what became of them.")
SERIES_COUNTER  (DETECT_DIALS,     "weft_detect_dials_total",    "direction,after", "Connections dialled to the server while it was not known who speaks first.")
SERIES_COUNTER  (EJECTIONS,        "weft_endpoint_ejections_total", "backend,reason", "Endpoints taken out of a service's choice by their circuit breaker.")
SERIES_COUNTER  (EJECTIONS_KEPT,   "weft_endpoint_ejections_kept_total", "backend,reason", "Endpoints that stayed in although their breaker opened: too many others were out.")
SERIES_COUNTER  (RETURNS,          "weft_endpoint_returns_total", "backend", "Endpoints whose probe did not fail: they are chosen again.")
SERIES_GAUGE    (ENDPOINTS,        "weft_backend_endpoints",     "backend,state", "Endpoints of a service as this proxy sees them: ready, pending (not reached), ejected.")
SERIES_GAUGE    (WINDOW_BYTES,     "weft_http2_window_bytes",     "", "What HTTP/2 peers may send beyond the window that a connection begins with.")
SERIES_COUNTER  (WINDOW_GROWN,     "weft_http2_window_grown_total","", "Times a connection's HTTP/2 receive windows grew with its path.")

SERIES_LE(1)
SERIES_LE(2)
SERIES_LE(3)
SERIES_LE(4)
SERIES_LE(5)
SERIES_LE(10)
SERIES_LE(20)
SERIES_LE(30)
SERIES_LE(40)
SERIES_LE(50)
SERIES_LE(100)
SERIES_LE(200)
SERIES_LE(300)
SERIES_LE(400)
SERIES_LE(500)
SERIES_LE(1000)
SERIES_LE(2000)
SERIES_LE(3000)
SERIES_LE(4000)
SERIES_LE(5000)
SERIES_LE(10000)
SERIES_LE(20000)
SERIES_LE(30000)
SERIES_LE(40000)
SERIES_LE(50000)

#undef L_PEERS
#undef L_TCP
#undef L_ROUTE
#undef SERIES_COUNTER
#undef SERIES_GAUGE
#undef SERIES_HISTOGRAM
#undef SERIES_LE
