/* What a peer may cost us without asking for anything: token buckets per connection (hardening.md 2.2).
 * At three quarters of a bucket the connection is told to go away (GOAWAY, NO_ERROR), at its end it is closed
 * with FLOOD.
 *    kind           burst  per second  what is counted */
FLOOD(EARLY_RESET,     100,   2, "streams reset within a second and before an answer, or refused; an answered stream gives one back")
FLOOD(RESET,          1000,  33, "all resets by the peer")
FLOOD(SETTINGS,         50,   1, "SETTINGS frames that are not acknowledgements")
FLOOD(INITIAL_WINDOW,   20,   1, "changes of SETTINGS_INITIAL_WINDOW_SIZE: each moves every stream's window")
FLOOD(PING,            100,   2, "PING frames that are not acknowledgements; one is free when DATA was sent since the last free one")
FLOOD(PRIORITY,        100,   2, "PRIORITY frames; they have no other effect")
FLOOD(EMPTY_DATA,      100,   1, "DATA frames without content that do not end a stream")
FLOOD(UNKNOWN,          1000, 100, "frames of unknown types; browsers send a PRIORITY_UPDATE per request")
FLOOD(GOAWAY,           10,   1, "GOAWAY frames")
FLOOD(HUGE_HEAD,        10,   1, "header blocks over the limits")
