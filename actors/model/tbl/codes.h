/* Every answer that the mesh makes itself, and every connection it refuses:
 *
 *   CODE(id, name, http, grpc, closes, proxy_status, "what happened", "what to do")
 *
 * id is stable for ever and appears in Proxy-Status, logs, metrics and `weft explain ID`. http is the
 * status of the answer (0: no HTTP answer is possible, the connection or stream is cut), grpc the gRPC
 * status, closes whether an HTTP/1.1 connection ends after it, proxy_status the error type of RFC 9209
 * section 2.3. W1 who to send it to, W2 the other end, W3 time, W4 the request was bad, W5 TLS and
 * identity, W6 not allowed, W7 limits of the mesh itself, W8 the mesh's own state. */

/* ---- W1: where should it go ---- */
CODE(W1001, NO_ENDPOINT,      504,  4, true,  destination_unavailable,
     "No endpoint of the service was ready before the wait for one ended.",
     "See whether the service has ready pods: `weft get endpoints`, `weft stat`. If there are some, look for connect or TLS errors in `weft events`.")
CODE(W1002, NO_ROUTE,         404,  5, false, destination_not_found,
     "Routes are attached to the service, and none of them matches the request.",
     "Compare host, path, method and headers with `weft routes SERVICE`; add a rule without matches if the rest should pass.")
CODE(W1003, BACKEND_MISSING,  500,  9, false, proxy_configuration_error,
     "The rule chose a backend that does not exist; its share of the requests is answered so.",
     "Create the backend's Service or take it out of the route; the answer's details name both.")
CODE(W1004, NO_BACKENDS,      500,  9, false, proxy_configuration_error,
     "The rule that matched has no backend with a weight above 0.",
     "Give one of the rule's backendRefs a weight, or add a redirect.")
CODE(W1005, UNKNOWN_TARGET,   502, 14, true,  destination_not_found,
     "The name is not known to the mesh and there is no original address to go to.",
     "Check the spelling (NAME, NAME.NS, NAME.NS.svc.cluster.local) and the port; `weft get services` lists what exists.")
CODE(W1006, BROKER_AWAY,      503, 14, true,  destination_unavailable,
     "The target was never seen by this pod, and the broker that could tell is not reachable.",
     "See `weft status` and the pod's state `broker`. Targets that are known already go on working.")
CODE(W1007, LOOP,             508, 10, true,  proxy_loop_detected,
     "The request came back to the proxy that had sent it.",
     "The service's address leads back to the pod itself: check its endpoints and the traffic redirect.")
CODE(W1008, INJECTED,         500,  9, false, proxy_internal_response,
     "A route says that such requests fail.",
     "Nothing is broken; see `weft routes SERVICE` for the rule with a failure filter.")
CODE(W1009, REDIRECT,         302,  5, false, proxy_internal_response,
     "A route redirects the request.",
     "Nothing is broken; the client should follow Location.")
CODE(W1010, BAD_REDIRECT,     500, 13, false, proxy_configuration_error,
     "A redirect or rewrite cannot be carried out for this request (no host, or no matched prefix to replace).",
     "Let the filter name a hostname, or use it only in rules with a PathPrefix match.")
CODE(W1011, NO_TLS_ROUTE,       0, 14, true,  destination_not_found,
     "TLSRoutes are attached to the service, and none of them is for the server name of the connection (or it named none).",
     "See which would be: `weft route tls HOST:PORT -H 'Host: NAME'`; add the name to a TLSRoute, or one without hostnames for the rest.")

/* ---- W2: the other end ---- */
CODE(W2001, CONNECT_REFUSED,  502, 14, true,  connection_refused,
     "The endpoint refused the connection.",
     "The pod lives but nothing listens on that port: check the application's port and whether it has started.")
CODE(W2002, CONNECT_FAILED,   502, 14, true,  destination_ip_unroutable,
     "The connection could not be made (no route, reset, or a local error).",
     "Check the network between the pods; the answer's details carry the system's error.")
CODE(W2003, APP_REFUSED,      502, 14, true,  connection_refused,
     "The application beside this proxy refused the connection.",
     "Check that the application listens on that port on the pod's address or on 0.0.0.0, and is not still starting.")
CODE(W2004, CLOSED_EARLY,     502, 14, true,  connection_terminated,
     "The other end closed the connection before the answer's head was complete.",
     "Look into the application's log for a crash, or an idle timeout that is shorter than the mesh's (WEFT_POOL_IDLE_TIMEOUT).")
CODE(W2005, RESPONSE_CUT,       0, 14, true,  http_response_incomplete,
     "The other end stopped in the middle of its answer; what had arrived was passed on.",
     "Look into the application's log; if it was a deploy, give it a longer time to drain.")
CODE(W2006, BAD_RESPONSE,     502, 13, true,  http_protocol_error,
     "The other end's answer is not valid HTTP.",
     "The answer's details name the first fault. If the port does not speak HTTP, declare it opaque (config.linkerd.io/opaque-ports).")
CODE(W2007, RESPONSE_HEAD_BIG,502, 13, true,  http_response_header_section_size,
     "The head of the answer is larger than WEFT_HEAD_MAX, has more fields than WEFT_FIELDS_MAX, or one longer than WEFT_FIELD_MAX.",
     "Raise the setting, or make the application send less.")
CODE(W2008, STREAM_RESET,     502, 14, false, connection_terminated,
     "The other end reset the stream before an answer.",
     "The answer's details carry the HTTP/2 error code. REFUSED_STREAM is retried by itself.")
CODE(W2009, UPGRADE_FAILED,   502, 14, true,  http_upgrade_failed,
     "The other end answered 101 to a request that asked for no upgrade, or with another protocol.",
     "Look at the application: it switches protocols unasked.")
CODE(W2010, IDLE_RACE,        502, 14, true,  connection_terminated,
     "The other end closed a kept connection just as this request was sent on it, and nobody can tell whether it was read.",
     "Requests that may be repeated were. For others: give the application a longer keep-alive timeout, or the client an Idempotency-Key.")

/* ---- W3: time ---- */
CODE(W3001, CONNECT_TIMEOUT,  504,  4, true,  connection_timeout,
     "The connection was not made in time.",
     "The address does not answer: a pod that is gone, a firewall, or overload. See WEFT_OUTBOUND_CONNECT_TIMEOUT and WEFT_INBOUND_CONNECT_TIMEOUT.")
CODE(W3002, REQUEST_TIMEOUT,  504,  4, false, http_response_timeout,
     "The whole exchange, with its retries, took longer than the route allows (timeouts.request).",
     "Look at the latency in `weft stat`; raise timeouts.request or make the service faster.")
CODE(W3003, BACKEND_TIMEOUT,  504,  4, false, http_response_timeout,
     "One attempt took longer than the route allows (timeouts.backendRequest, timeout.linkerd.io/response).",
     "Look at the latency of the endpoints in `weft stat`; raise the limit or allow a retry.")
CODE(W3004, IDLE_TIMEOUT,     504,  4, false, connection_read_timeout,
     "No byte moved in either direction for longer than the route allows (timeout.linkerd.io/idle).",
     "Raise it for streams that are silent for long, or let the application send something now and then.")
CODE(W3005, HEAD_TIMEOUT,     408,  4, true,  http_request_error,
     "The client did not finish the head of its request in time (WEFT_HEADER_TIMEOUT).",
     "A very slow or hostile client; nothing to do if it was one of those.")
CODE(W3006, PER_TRY_TIMEOUT,  504,  4, false, http_response_timeout,
     "The head of the answer did not come within the limit of an attempt (retry.linkerd.io/timeout), and no retry was left.",
     "Raise the limit or the number of retries.")
CODE(W3007, APP_TIMEOUT,      504,  4, true,  connection_timeout,
     "The application beside this proxy did not accept the connection in time.",
     "It is overloaded, or still starting: see its log and its listen backlog.")
CODE(W3008, DEADLINE,         504,  4, false, http_response_timeout,
     "The time that the caller gives the request is over: its grpc-timeout, the deadline that came from the proxy of the caller's side, or what is left to the inbound request of the same trace.",
     "The details say whose deadline it was. Give the first request more time, or find out where it went: `weft stat`. WEFT_TRACE_DEADLINES=false keeps deadlines from following traces through an application.")
CODE(W3009, RESPONSE_HEAD_TIMEOUT, 504, 4, false, http_response_timeout,
     "The request had been sent, and the head of the answer did not come within the route's limit (timeout.weft.io/response-headers).",
     "Look at the latency in `weft stat`; raise the limit, or let the application answer with its head early.")

/* ---- W4: the request was bad ---- */
CODE(W4001, BAD_REQUEST,      400, 13, true,  http_request_error,
     "The request is not valid HTTP.",
     "The answer's details name the first fault. Linkerd and others let some of these pass; they are how requests are smuggled.")
CODE(W4002, AMBIGUOUS_LENGTH, 400, 13, true,  http_request_error,
     "The length of the request's body is ambiguous (Content-Length with Transfer-Encoding, or given twice, or not a number).",
     "Fix the client: it sends what two servers may read differently.")
CODE(W4003, UNSUPPORTED_CODING,501,12, true,  http_request_error,
     "The request's Transfer-Encoding is not `chunked`.",
     "Fix the client: compression belongs into Content-Encoding.")
CODE(W4004, HEAD_TOO_BIG,     431,  8, true,  http_request_error,
     "The head of the request is larger than WEFT_HEAD_MAX, has more fields than WEFT_FIELDS_MAX, or one longer than WEFT_FIELD_MAX.",
     "Often a cookie that grew: the answer's details name the field. Raise the setting if it is meant.")
CODE(W4005, BAD_VERSION,      505, 12, true,  http_request_error,
     "The request is of an HTTP version that is not spoken here.",
     "HTTP/1.0, HTTP/1.1 and HTTP/2 are.")
CODE(W4006, BAD_EXPECTATION,  417, 13, true,  http_request_error,
     "The request expects something else than 100-continue.",
     "Fix the client's Expect field.")
CODE(W4007, BAD_HOST,         400, 13, true,  http_request_error,
     "The request has no host, two of them, or one that is not valid.",
     "Fix the client; `curl -v` shows what a good request looks like.")
CODE(W4008, METHOD_TOO_LONG,  501, 12, true,  http_request_error,
     "The request's method is longer than 32 bytes.",
     "Fix the client.")
CODE(W4009, CLIENT_GONE,        0,  1, true,  http_request_error,
     "The client went away before its request was complete or its answer was written.",
     "Often the client's own timeout; compare it with the latency in `weft stat`.")
CODE(W4010, URI_TOO_LONG,     414, 13, true,  http_request_error,
     "The request line is longer than WEFT_LINE_MAX.",
     "Often a form that was sent with GET; raise the setting if it is meant.")

/* ---- W5: TLS and identity ---- */
CODE(W5001, NO_CERTIFICATE,   503, 14, true,  tls_certificate_error,
     "This pod has no certificate yet, so it can neither open nor take mesh connections.",
     "See the pod's state `certificate` and `weft events`: the authority may be away, or the join token used up.")
CODE(W5002, TLS_FAILED,       502, 14, true,  tls_protocol_error,
     "The TLS handshake with the endpoint failed.",
     "The answer's details carry the reason; `weft edges` shows which pairs of pods it hits.")
CODE(W5003, TLS_TIMEOUT,      504,  4, true,  connection_timeout,
     "The TLS handshake did not end in time (WEFT_HANDSHAKE_TIMEOUT).",
     "The other pod is overloaded, or what listens there is not a mesh proxy.")
CODE(W5004, UNKNOWN_ISSUER,   502, 14, true,  tls_certificate_error,
     "The endpoint's certificate does not lead to one of this mesh's trust anchors.",
     "Was the trust anchor changed without a rollover? `weft certs` shows who presents what.")
CODE(W5005, WRONG_IDENTITY,   502, 14, true,  tls_certificate_error,
     "The endpoint's certificate names another identity than discovery does.",
     "The address was perhaps reused by another pod; if it stays, compare `weft get endpoints` with `weft certs`.")
CODE(W5006, EXPIRED,          502, 14, true,  tls_certificate_error,
     "The endpoint's certificate has expired (or is not valid yet).",
     "See the endpoint's state `certificate`: its renewal fails, or the clocks differ.")
CODE(W5007, NO_CLIENT_CERT,     0, 16, true,  tls_certificate_error,
     "A mesh connection came without a client certificate.",
     "Only mesh proxies may use the inbound port directly; others must use the application's port.")
CODE(W5008, TLS_ALERT,        502, 14, true,  tls_alert_received,
     "The endpoint ended the handshake with an alert.",
     "Its own log says why: usually it does not trust this pod's certificate.")

/* ---- W6: not allowed ---- */
CODE(W6001, DENIED,           403,  7, false, http_request_denied,
     "The policy of the server's side does not allow this client here.",
     "The details name client and server; `weft check` and `weft explain` on the policy show what would be allowed.")
CODE(W6002, RATE_LIMITED,     429,  8, false, http_request_denied,
     "The server's rate limit for this client, or for all of them, was met.",
     "Wait as long as Retry-After says; send less, or raise the HTTPLocalRateLimitPolicy that the details name.")

/* ---- W7: limits of the mesh itself ---- */
CODE(W7001, QUEUE_FULL,       503, 14, true,  connection_limit_reached,
     "Too many requests wait for an endpoint of this service (WEFT_QUEUE_CAPACITY).",
     "The service is too slow or too small for its load; see `weft stat`.")
CODE(W7002, FAILFAST,         504,  4, true,  destination_unavailable,
     "The service had no endpoint for so long that requests are answered at once instead of waiting.",
     "As NO_ENDPOINT; it ends by itself as soon as an endpoint is ready.")
CODE(W7003, DRAINING,         503, 14, true,  proxy_internal_response,
     "The pod is about to end and takes no new requests.",
     "Nothing, if it was rare; clients retry elsewhere. If it lasts, the pod's endpoints did not leave discovery: `weft events`.")
CODE(W7004, TOO_MANY_CONNECTIONS, 503, 14, true, connection_limit_reached,
     "The proxy has as many connections as it may (WEFT_MAX_CONNECTIONS, or limit.weft.io/max-connections of the service), or no file descriptor is left.",
     "Raise the limit, or find out who opens so many: `weft top`.")
CODE(W7005, REPLAY_REFUSED,   502, 14, false, proxy_internal_response,
     "The attempt failed and could not be made again: the request's body was too large to keep, or part of it had reached the application.",
     "Send an Idempotency-Key or allow retries on the route if the request may be repeated; raise WEFT_REPLAY_MAX for larger bodies.")
CODE(W7006, MEMORY,           503,  8, true,  proxy_internal_error,
     "The proxy met a memory limit.",
     "Raise the limit of the pod; `weft top` shows what uses it.")
CODE(W7007, APP_CONNECTIONS,  503, 14, false, connection_limit_reached,
     "As many connections to the application's port are open as its Service allows (limit.weft.io/app-connections), and none became free while the request waited.",
     "The application is too slow for its load, or the limit too small for it: see `weft stat`; add replicas or raise the limit.")
CODE(W7008, ATTEMPT_REFUSED,  503, 14, false, proxy_internal_response,
     "This was a further attempt (a retry or a hedge), and such attempts are already too large a part of what the application gets from all its clients together.",
     "See why so many first attempts fail: `weft stat`. The share is WEFT_RETRY_PRESSURE of the server's pod; clients stop retrying that service for a second by themselves.")

/* ---- W8: the mesh's own state ---- */
CODE(W8001, INTERNAL,         500, 13, true,  proxy_internal_error,
     "Something went wrong inside the proxy that has no code of its own.",
     "Please report it with the log line that has the same request id.")
CODE(W8002, BAD_VIEW,         500, 13, true,  proxy_configuration_error,
     "The view of the service that came from the control plane cannot be used.",
     "Pod and broker are perhaps too far apart in version; the proxy's log names the fault.")
CODE(W8003, RESTARTING,       503, 14, true,  proxy_internal_error,
     "A part of the pod is being restarted and was needed for this request.",
     "It takes milliseconds; clients may retry. `weft events` shows why it restarted.")
