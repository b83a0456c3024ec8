/* Every setting of Weft: SETTING_<TYPE>(field, "ENVIRONMENT_NAME", "default", "meaning").
 * docs/settings.md is printed from this table (weft settings --markdown). */

/* --- where things are --- */
SETTING_STR  (run_dir,        "WEFT_RUN_DIR",        "/run/weft",   "directory (0700) of this pod's sockets and status file")
SETTING_STR  (state_dir,      "WEFT_STATE_DIR",      "/var/lib/weft", "directory of what survives a restart: snapshot, keys, databases")
SETTING_STR  (bin_dir,        "WEFT_BIN_DIR",        "",            "directory of Weft's executables; empty: beside the supervisor's")

/* --- who this pod is --- */
SETTING_STR  (pod,            "WEFT_POD",            "",            "name of this pod, unique in its namespace")
SETTING_STR  (namespace,      "WEFT_NAMESPACE",      "default",     "namespace of this pod")
SETTING_STR  (workload,       "WEFT_WORKLOAD",       "",            "workload (deployment) the pod belongs to")
SETTING_STR  (app_version,    "WEFT_APP_VERSION",    "",            "version of the application, any text: what was learned of another version's ports does not hold for it")
SETTING_STR  (service_account,"WEFT_SERVICE_ACCOUNT","",            "service account: the first part of the identity")
SETTING_STR  (control_namespace,"WEFT_CONTROL_NAMESPACE","weft",    "namespace of the control plane: a part of every identity")
SETTING_STR  (trust_domain,   "WEFT_TRUST_DOMAIN",   "cluster.local","trust domain: the last part of every identity")
SETTING_STR  (pod_ips,        "WEFT_POD_IPS",        "",            "addresses of this pod, comma list")
SETTING_STR  (serves,         "WEFT_SERVES",         "",            "what the application serves: SERVICE:PORT[/PROTOCOL] comma list; PROTOCOL is http1, http2, grpc or opaque")
SETTING_BOOL (await_app,      "WEFT_AWAIT_APP",      "false",       "take traffic only after every served port accepted one TCP connection, which is closed at once")
SETTING_STR  (zone,           "WEFT_ZONE",           "",            "zone of this pod")
SETTING_U32  (weight,         "WEFT_WEIGHT",         "10000",       "weight of this pod among the endpoints of its services; 10000 is normal, 5000 half of it")

/* --- control plane --- */
SETTING_STR  (broker,         "WEFT_BROKER",         "",            "host:port of the broker's request socket")
SETTING_STR  (broker_updates, "WEFT_BROKER_UPDATES", "",            "host:port of the broker's update feed")
SETTING_STR  (collector,      "WEFT_COLLECTOR",      "",            "host:port of the collector's feed for pods")
SETTING_STR  (broker_key,     "WEFT_BROKER_KEY",     "",            "the broker's CURVE public key, Z85")
SETTING_STR  (join_token_file,"WEFT_JOIN_TOKEN_FILE","",            "file (0600) with the one-time join token")
SETTING_STR  (trust_anchors_file,"WEFT_TRUST_ANCHORS_FILE","",      "PEM file of the trust anchors to start with")

/* --- listeners of a pod --- */
SETTING_U32  (outbound_port,  "WEFT_OUTBOUND_PORT",  "4140",        "port the application's own connections are redirected to")
SETTING_U32  (inbound_port,   "WEFT_INBOUND_PORT",   "4143",        "port that takes connections for the application and from other pods")
SETTING_U32  (admin_port,     "WEFT_ADMIN_PORT",     "4191",        "port of /metrics, /live and /ready")
SETTING_BOOL (ipv6,           "WEFT_IPV6",           "true",        "listen on IPv6 too")
SETTING_U32  (workers,        "WEFT_WORKERS",        "1",           "number of weft-proxy processes; 0: as many as the CPU quota has processors (rounded up)")
SETTING_STR  (opaque_ports,   "WEFT_OPAQUE_PORTS",   "25,587,3306,4444,5432,6379,9300,11211", "ports never parsed as HTTP, comma list of ports and ranges")
SETTING_STR  (outbound_only_for,"WEFT_OUTBOUND_TARGET","",          "send everything that arrives at the outbound port to this host:port (for use without traffic redirect)")
SETTING_STR  (inbound_only_for,"WEFT_INBOUND_TARGET","",            "send what arrives at the inbound port to this host:port instead of the original destination")

/* --- limits and times of the data plane --- */
SETTING_MS   (detect_timeout, "WEFT_DETECT_TIMEOUT", "10s",         "longest wait for the first bytes of a connection before it is treated as opaque")
SETTING_MS   (outbound_connect_timeout,"WEFT_OUTBOUND_CONNECT_TIMEOUT","1s","longest time to connect to an endpoint; TLS comes after it and has WEFT_HANDSHAKE_TIMEOUT")
SETTING_MS   (inbound_connect_timeout,"WEFT_INBOUND_CONNECT_TIMEOUT","300ms","longest time to connect to the application")
SETTING_MS   (handshake_timeout,"WEFT_HANDSHAKE_TIMEOUT","10s",     "longest TLS handshake, its wait for its turn in weft-tls included")
SETTING_MS   (header_timeout, "WEFT_HEADER_TIMEOUT", "10s",         "longest time from the first byte of a request head to its end")
SETTING_MS   (stall_timeout,  "WEFT_STALL_TIMEOUT",  "10s",         "close an HTTP/2 connection whose peer keeps its windows shut for so long while something waits for them; 0: never")
SETTING_U32  (body_rate_min,  "WEFT_BODY_RATE_MIN",  "240",         "cut an HTTP/2 request whose announced content comes with fewer bytes a second than this, over 5 s; 0: never")
SETTING_MS   (idle_timeout,   "WEFT_IDLE_TIMEOUT",   "0",           "close an application's connection on which nothing happened for so long; 0: never")
SETTING_MS   (peer_timeout,   "WEFT_PEER_TIMEOUT",   "30s",         "reset a connection whose peer, with bytes waiting for it, has acknowledged none of them and no window probe for so long; a reader that only rests is not cut")
SETTING_MS   (pool_idle_timeout,"WEFT_POOL_IDLE_TIMEOUT","3s",      "how long an unused HTTP/1 connection to an application is kept")
SETTING_MS   (failfast_timeout,"WEFT_FAILFAST_TIMEOUT","3s",        "how long a request waits for an endpoint before it is answered 503/504")
SETTING_U32  (queue_capacity, "WEFT_QUEUE_CAPACITY", "10000",       "requests that may wait for an endpoint of one service")
SETTING_U32  (max_connections,"WEFT_MAX_CONNECTIONS","100000",      "connections of one proxy worker; above it accepting pauses")
SETTING_BYTES(replay_max,     "WEFT_REPLAY_MAX",     "256Ki",       "largest request body kept for a retry in the memory of the proxy; larger ones: WEFT_REPLAY_SPILL")
SETTING_BYTES(window_total,   "WEFT_WINDOW_TOTAL",   "64Mi",        "what the HTTP/2 connections of one proxy worker may let their peers send beyond the 1 MiB that each begins with, where the path is long; 0: windows do not grow")
SETTING_BYTES(replay_total,   "WEFT_REPLAY_TOTAL",   "64Mi",        "memory of one proxy worker for bodies kept for a retry")
SETTING_BYTES(replay_spill,   "WEFT_REPLAY_SPILL",   "256Mi",       "memory file of one proxy worker for larger bodies kept for a retry, taken only as it is used, one body at most a quarter of it; 0: none")
SETTING_BYTES(head_max,       "WEFT_HEAD_MAX",       "64Ki",        "largest request or response head")
SETTING_BYTES(line_max,       "WEFT_LINE_MAX",       "8Ki",         "longest request line (or status line); in HTTP/2 the longest :path")
SETTING_BYTES(field_max,      "WEFT_FIELD_MAX",      "16Ki",        "longest header field, name and value together")
SETTING_U32  (fields_max,     "WEFT_FIELDS_MAX",     "200",         "most header fields in a head")
SETTING_MS   (retry_ask_timeout,"WEFT_RETRY_ASK_TIMEOUT","250ms",   "how long the proxy waits for weft-retry's verdict before it gives up retrying")
SETTING_BOOL (trace_deadlines,"WEFT_TRACE_DEADLINES","true",        "what the application asks of others with the trace of an inbound request has no more time than that request (traceparent, b3)")
SETTING_U32  (retry_pressure, "WEFT_RETRY_PRESSURE", "20",          "percent of the requests for a port of the application, of all clients in the last 10 s, that may be further attempts (beside 10 a second); those above are refused as not delivered; 0: none are")
SETTING_BOOL (keep_attempt,   "WEFT_KEEP_ATTEMPT",   "false",       "tell the application the number of a further attempt (weft-attempt: 2...)")
SETTING_BOOL (allow_request_fields,"WEFT_ALLOW_REQUEST_FIELDS","false","the application may set retries for a single request: l5d-retry-http, -grpc, -limit, -timeout; otherwise they are taken away unread")
SETTING_MS   (drain_timeout,  "WEFT_DRAIN_TIMEOUT",  "120s",        "longest time for running requests after SIGTERM")

/* --- identity --- */
SETTING_U32  (handshakes_max, "WEFT_HANDSHAKES_MAX", "256",         "handshakes weft-tls works on at once")
SETTING_MS   (certificate_lifetime,"WEFT_CERTIFICATE_LIFETIME","24h","lifetime of a workload certificate")
SETTING_MS   (issuer_lifetime,"WEFT_ISSUER_LIFETIME","365d",        "lifetime of the embedded issuer certificate")
SETTING_MS   (root_lifetime,  "WEFT_ROOT_LIFETIME",  "3650d",       "lifetime of the embedded root certificate")

/* --- control plane processes --- */
SETTING_STR  (listen_address, "WEFT_LISTEN_ADDRESS", "127.0.0.1",   "address the control plane's sockets are bound to")
SETTING_U32  (broker_port,    "WEFT_BROKER_PORT",    "8086",        "broker: requests")
SETTING_U32  (updates_port,   "WEFT_UPDATES_PORT",   "8087",        "broker: updates")
SETTING_U32  (feed_port,      "WEFT_FEED_PORT",      "8088",        "collector: subscribers of the feed")
SETTING_U32  (pods_port,      "WEFT_PODS_PORT",      "8089",        "collector: pods")
SETTING_STR  (service_cidr,   "WEFT_SERVICE_CIDR",   "10.214.128.0/17", "addresses the broker gives to services that ask for none")
SETTING_MS   (lease,          "WEFT_LEASE",          "6s",          "a session that was silent for so long has ended")
SETTING_MS   (digest_interval,"WEFT_DIGEST_INTERVAL","2s",          "how often the broker publishes digests")
SETTING_MS   (rollup_10s_keep,"WEFT_ROLLUP_10S_KEEP","1h",          "how long 10 s rollups are kept")
SETTING_MS   (rollup_1m_keep, "WEFT_ROLLUP_1M_KEEP", "2d",          "how long 1 min rollups are kept")
SETTING_MS   (rollup_1h_keep, "WEFT_ROLLUP_1H_KEEP", "90d",         "how long 1 h rollups are kept")

/* --- the processes themselves --- */
SETTING_STR  (log,            "WEFT_LOG",            "info",        "what is logged: error, warn, info or debug")
SETTING_U32  (uid,            "WEFT_UID",            "0",           "user id the processes run as once the ports are open; 0: do not change")
SETTING_U32  (gid,            "WEFT_GID",            "0",           "group id, likewise; 0: do not change")

/* --- for tests --- */
SETTING_BOOL (test_preload,   "WEFT_TEST_PRELOAD",   "false",       "pass LD_PRELOAD and FAKETIME* on to the processes")
SETTING_U32  (rekey_after,    "WEFT_TEST_REKEY_AFTER","0",          "records per key before a KeyUpdate; 0: the limit of the AEAD")
SETTING_BOOL (confine,        "WEFT_CONFINE",        "true",        "confine the processes (seccomp, Landlock); false only for debugging")

#undef SETTING_STR
#undef SETTING_U32
#undef SETTING_BOOL
#undef SETTING_MS
#undef SETTING_BYTES
