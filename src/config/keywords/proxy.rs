//! The keywords of `defaults`, `frontend`, `backend` and `listen` sections.

use super::Side::{Back, Both, Front};
use super::keyword::{later, needed, never, no_effect, works};
use super::{CONNECTS, HTTP_ONLY, Keyword, MANY, QUIC_ONLY, TLS_ONLY};
use crate::config::parse::{
    acl, balance, bind, check, http_check, log_format, pages, proxy, server, source, state_file,
    tcp_check, tcp_request, udp, udp_check,
};

const REMOVED: &str = "HAProxy removed it, and it concerns HTTP only";

#[rustfmt::skip]
pub(super) static PROXY: &[Keyword] = &[
    works("mode", Both, 1, "tcp|udp|http", "What the proxy carries: streams or, which is Tidegate's own, datagrams (docs/udp.md). In 'mode http' it carries nothing: it answers with metrics and statistics (docs/metrics.md).", proxy::mode)
        .default("tcp").also_requests(),
    works("disabled", Both, 0, "", "The proxy is read and not started.", proxy::disabled)
        .also_requests(),
    works("enabled", Both, 0, "", "Undoes an inherited 'disabled'.", proxy::enabled)
        .also_requests(),
    works("id", Both, 1, "<number>", "Number of the proxy in statistics, unique.", proxy::id)
        .default("the next free one, from 2 on").not_in_defaults().also_requests(),
    works("guid", Both, 1, "<text>", "Identity of the proxy over restarts, unique in the file.", proxy::guid)
        .default("none").not_in_defaults().also_requests(),
    works("description", Both, MANY, "<text>", "A remark about the proxy.", proxy::description)
        .not_in_defaults().also_requests(),
    works("option tcpka", Both, 0, "", "TCP keep-alive on both sides.", proxy::option)
        .default("off").streams(),
    works("option independent-streams", Both, 0, "", "What is sent to a side doesn't show that it is alive.", proxy::option)
        .default("off").streams(),
    works("option splice-auto", Both, 0, "", "Moves bytes by splice(2) in either direction where that costs less than copying them; docs/relaying.md has more.", proxy::option)
        .default("off").streams(),
    works("option splice-request", Both, 0, "", "Moves clients' bytes by splice(2) wherever that is possible.", proxy::option)
        .default("off").streams(),
    works("option splice-response", Both, 0, "", "Moves servers' bytes by splice(2) wherever that is possible.", proxy::option)
        .default("off").streams(),
    works("option nolinger", Both, 0, "", "Connections end by a reset: what is under way may be lost.", proxy::option)
        .default("off").streams(),

    works("bind", Front, MANY, "<address>[,...] [<parameter>...]", "Addresses to listen on.", bind::bind)
        .not_in_defaults().lacks(&["mptcp@", "sockpair@"]).also_requests(),
    works("backlog", Front, 1, "<number>", "Length of the kernel's accept queue.", proxy::backlog)
        .default("'maxconn' of the proxy, else 4096").streams().also_requests(),
    works("clitcpka-cnt", Front, 1, "<number>", "Keep-alive probes before a client is given up.", proxy::keepalive_value)
        .default("the kernel's").streams(),
    works("clitcpka-idle", Front, 1, "<time>", "Idle time before the first keep-alive probe to a client, in seconds.", proxy::keepalive_value)
        .default("the kernel's").streams(),
    works("clitcpka-intvl", Front, 1, "<time>", "Time between keep-alive probes to a client, in seconds.", proxy::keepalive_value)
        .default("the kernel's").streams(),
    works("default_backend", Front, 1, "<backend>", "Where connections go.", proxy::default_backend),
    works("use_backend", Front, MANY, "<backend>", "Where connections go, whatever 'default_backend' says. A condition after it is an error: there are none yet.", proxy::use_backend)
        .not_in_defaults(),
    works("option clitcpka", Front, 0, "", "TCP keep-alive towards clients.", proxy::option)
        .default("off").streams(),
    works("option dontlog-normal", Front, 0, "", "Log only sessions that went wrong or needed another attempt to connect; with 'option tcplog'.", proxy::option)
        .default("off"),
    works("option dontlognull", Front, 0, "", "Don't log connections without data.", proxy::option)
        .default("off").streams(),
    works("option log-separate-errors", Front, 0, "", "Log sessions that went wrong with the level 'err' instead of 'info'.", proxy::option)
        .default("off"),
    works("option socket-stats", Front, 0, "", "Statistics of each listener: a row of 'show stat', and metrics.", proxy::option)
        .default("off"),
    works("option tcplog", Front, 1, "[clf]", "Log a full line at the end of a session.", proxy::option)
        .default("off: a short line when it begins").lacks(&["clf"]).streams(),
    works("option httplog", Front, 1, "[clf]", "Means 'option tcplog', as it does with HAProxy in a proxy that isn't in 'mode http'; a notice says so.", proxy::http_log)
        .default("off").streams(),
    works("option httpslog", Front, 0, "", "The same.", proxy::http_log)
        .default("off").streams(),
    works("log-format", Front, MANY, "<format>", "Form of the lines of sessions; docs/logging.md has more.", log_format::format)
        .default("that of 'option tcplog', else the short one").streams(),
    works("log-format-sd", Front, MANY, "<format>", "Structured data of lines in the format 'rfc5424'.", log_format::format)
        .default("none").streams(),
    works("error-log-format", Front, MANY, "<format>", "Form of the lines of connections that never became a session.", log_format::format)
        .default("HAProxy's").streams(),
    works("unique-id-format", Front, MANY, "<format>", "What '%ID' stands for in lines.", log_format::format)
        .default("'%ID' is '-'").streams(),
    works("log-tag", Both, 1, "<tag>", "Program name in a proxy's log lines.", log_format::tag)
        .default("the global one"),
    works("option logasap", Front, 0, "", "Logs a session when it is connected, with a '+' before what goes on.", log_format::asap)
        .default("off").streams(),
    works("option tcp-smart-accept", Front, 0, "", "The kernel acknowledges a client's first data with the answer to it.", proxy::option)
        .default("off").streams(),
    works("rate-limit", Front, 2, "sessions <number>", "New sessions per second; more wait to be accepted.", proxy::rate_limit)
        .default("any number"),
    works("timeout client", Front, 1, "<time>", "Longest silence of a client.", proxy::timeout)
        .default("infinite, with a warning").also_requests(),
    works("tcp-request", Both, MANY, "connection expect-proxy layer4 [if|unless <condition>]", "Expects a PROXY header from clients that meet the condition; by their own address.", tcp_request::tcp_request)
        .lacks(&["connection accept", "connection reject", "session", "content", "inspect-delay"]),
    works("acl", Both, MANY, "<name> src [<flag>...] <address>...", "Names a condition, of source addresses and networks ('-f' reads them from a file).", acl::acl)
        .lacks(&["other criteria"]).also_requests(),
    works("timeout client-fin", Front, 1, "<time>", "The same once one direction is closed.", proxy::timeout)
        .default("'timeout client'").streams(),
    works("timeout client-hs", Front, 1, "<time>", "Longest wait for a PROXY header.", proxy::timeout)
        .default("'timeout client', else 30s").streams(),

    works("balance", Back, MANY, "roundrobin | static-rr | leastconn | peak-ewma | first | random[(<draws>)] | source | hash <expression>", "How a server is chosen; docs/balancing.md has more.", balance::balance)
        .default("roundrobin").lacks(&["rdp-cookie"]),
    works("default-server", Back, MANY, "<parameter>...", "Parameters of the servers that follow.", server::default_server),
    works("fullconn", Back, 1, "<number>", "Sessions of the backend at which servers with 'minconn' reach their 'maxconn'.", proxy::fullconn)
        .default("a tenth of what the frontends that lead here may bring"),
    works("hash-balance-factor", Back, 1, "<percent>", "Most connections of a server, in percent of its share of all, under 'hash-type consistent' or 'maglev'; above 100, or 0 = no bound.", balance::hash_balance_factor)
        .default("0"),
    works("hash-type", Back, 3, "map-based|consistent|maglev [sdbm|djb2|wt6|crc32|none [avalanche]]", "How a hash finds a server; 'maglev' is Tidegate's own.", balance::hash_type)
        .default("map-based sdbm"),
    works("option allbackups", Back, 0, "", "All usable backup servers share the load, not only the first.", proxy::option)
        .default("off"),
    works("option log-health-checks", Back, 0, "", "Log every check that changes something.", proxy::option)
        .default("off: only servers that go down or come up"),
    works("option abortonclose", Back, 0, "", "A client that closes before it has a server is given up.", proxy::option)
        .default("off: only if it has sent nothing").streams(),
    works("option redispatch", Back, 1, "[<interval>]", "Retries may go to another server: -1 the last, N every Nth.", proxy::option)
        .default("off").streams(),
    works("option srvtcpka", Back, 0, "", "TCP keep-alive towards servers.", proxy::option)
        .default("off").streams(),
    works("option tcp-smart-connect", Back, 0, "", "The handshake's last ACK leaves with the first data.", proxy::option)
        .default("off").streams(),
    works("option tcp-check", Back, 0, "", "Checks by the steps of 'tcp-check' lines.", check::option)
        .default("checks connect"),
    works("option httpchk", Back, 3, "[[<method>] <uri> [<version>]]", "Checks by an HTTP request, and by the steps of 'http-check' lines. Without them a status from 200 to 399 passes.", check::option)
        .default("OPTIONS / HTTP/1.0"),
    works("option ldap-check", Back, 0, "", "Checks an LDAP server by an anonymous bind.", check::option),
    works("option mysql-check", Back, 3, "[user <name> [post-41|pre-41|post-80]]", "Checks a MySQL or MariaDB server: its greeting, and a login without a password where there is a user.", check::option),
    works("option pgsql-check", Back, 2, "user <name>", "Checks a PostgreSQL server by the beginning of a login.", check::option),
    works("option redis-check", Back, 0, "", "Checks a Redis server by 'PING'.", check::option),
    works("option smtpchk", Back, 2, "[HELO|EHLO <domain>]", "Checks an SMTP server: its greeting, a hello, 'QUIT'.", check::option)
        .default("HELO localhost"),
    works("option ssl-hello-chk", Back, 0, "", "Checks by a hello of TLS, to which any answer of TLS will do.", check::option),
    works("tcp-check", Back, MANY, "connect|send|send-binary|expect|comment ...", "A step of 'option tcp-check'.", tcp_check::tcp_check)
        .lacks(&["connect ssl", "connect sni", "connect alpn", "connect via-socks4", "connect proto", "expect string-lf", "expect binary-lf", "send-lf", "send-binary-lf", "set-var", "set-var-fmt", "unset-var"]),
    works("http-check", Back, MANY, "connect|send|expect|comment ...", "A step of 'option httpchk'.", http_check::http_check)
        .lacks(&["connect ssl", "connect sni", "connect alpn", "connect via-socks4", "connect proto", "send uri-lf", "send body-lf", "expect hdr", "expect fhdr", "expect min-recv", "expect string-lf", "disable-on-404", "send-state", "set-var", "set-var-fmt", "unset-var"]),
    works("retries", Back, 1, "<number>", "Connection attempts after the first.", proxy::retries)
        .default("3").streams(),
    works("server", Back, MANY, "<name> <address>[:[+|-]<port>] [<parameter>...]", "A server; what its address leaves open is the client's destination.", server::server)
        .not_in_defaults(),
    works("server-template", Back, MANY, "<prefix> <number>|<low>-<high> <address>[:<port>] [<parameter>...]", "Servers of one kind, named by prefix and number.", server::server_template)
        .not_in_defaults(),
    works("source", Back, MANY, "<address>[:<port>] [usesrc client|clientip|<address>[:<port>]] [interface <name>]", "Address, port and interface to connect and check from; with 'usesrc' connections have that address instead.", source::source)
        .default("the system's choice"),
    works("srvtcpka-cnt", Back, 1, "<number>", "Keep-alive probes before a server is given up.", proxy::keepalive_value)
        .default("the kernel's").streams(),
    works("srvtcpka-idle", Back, 1, "<time>", "Idle time before the first keep-alive probe to a server, in seconds.", proxy::keepalive_value)
        .default("the kernel's").streams(),
    works("srvtcpka-intvl", Back, 1, "<time>", "Time between keep-alive probes to a server, in seconds.", proxy::keepalive_value)
        .default("the kernel's").streams(),
    works("timeout check", Back, 1, "<time>", "Longest time of a health check's answer, once it is connected; its connect is then bounded by 'timeout connect', too.", proxy::timeout)
        .default("'inter' for all of a check"),
    works("timeout connect", Back, 1, "<time>", "Longest time of a connection attempt.", proxy::timeout)
        .default("infinite, with a warning"),
    works("timeout queue", Back, 1, "<time>", "Longest wait for a free server.", proxy::timeout)
        .default("'timeout connect'").streams(),
    works("timeout server", Back, 1, "<time>", "Longest silence of a server.", proxy::timeout)
        .default("infinite, with a warning"),
    works("timeout server-fin", Back, 1, "<time>", "The same once one direction is closed.", proxy::timeout)
        .default("'timeout server'").streams(),
    works("timeout tunnel", Back, 1, "<time>", "In place of 'timeout client' and 'timeout server' once the server is connected.", proxy::timeout).streams(),

    works("timeout udp", Both, 1, "<time>", "Silence of both sides after which a flow ends, in place of 'timeout client' and 'timeout server'; of the frontend's and the backend's the lesser one.", proxy::timeout)
        .default("'timeout client' or 'timeout server', else 60s").datagrams(),
    works("timeout udp-unconfirmed", Front, 1, "<time>", "The same while no answer has come.", proxy::timeout)
        .default("10s").datagrams(),
    works("timeout udp-mapping", Back, 1, "<time>", "How long a server may speak first to the client of a flow, with 'option udp-bidirectional'.", proxy::timeout)
        .default("5m").datagrams(),
    works("option udplog", Front, 0, "", "Logs each flow at its end.", udp::option)
        .default("off").datagrams(),
    works("udp-requests", Front, 1, "<number>", "Datagrams of a client after which its next one begins another flow, which may go to another server; 1 = each is balanced anew, 0 = any number.", udp::count)
        .default("any number").datagrams(),
    works("udp-responses", Front, 1, "<number>", "Answers that each datagram of a client is due; with the last one of them its flow ends. 0 = it ends with its first datagram, and no answer is passed on.", udp::count)
        .default("any number").datagrams(),
    works("udp-source-flows", Front, 1, "<number>", "Most flows of one client address; 0 = any number.", udp::count)
        .default("0").datagrams(),
    works("udp-fragment", Both, 1, "on|off", "Whether datagrams over the path MTU leave in fragments; else they are dropped and counted.", udp::fragment)
        .default("on; off with 'quic-lb' or a 'balance hash' of connection IDs").datagrams(),
    works("udp-proxy-header", Both, 1, "first|every", "Which datagrams of a flow begin with a PROXY header, where 'accept-proxy' or 'send-proxy-v2' says that there is one.", udp::header)
        .default("first").datagrams(),
    works("option udp-bidirectional", Back, 0, "", "Servers may speak first to the clients of their flows, for as long as 'timeout udp-mapping' says.", udp::option)
        .default("off").datagrams(),
    works("udp-sockets", Back, 1, "pool|dedicated", "What servers are spoken to from: sockets of a pool, each for one flow to each server at a time, or one for each flow.", udp::sockets)
        .default("pool").datagrams(),
    works("quic-lb", Back, 1, "<offset>,<length>", "Where in a QUIC connection ID the bytes stand that name a server by its 'quic-id'. It takes the datagram; who no ID names goes where 'balance' says.", udp::quic_lb)
        .default("connection IDs name no servers").datagrams(),
    works("quic-cid-length", Back, 1, "<number>", "Length of connection IDs in short headers, which don't tell, for 'balance hash udp.quic_cid'; 0 to 20.", udp::cid_length)
        .default("8").datagrams(),
    works("option udp-check", Back, 0, "", "Checks by the datagrams of 'udp-check' lines.", check::option)
        .default("a datagram that nothing but a refusal answers").datagrams(),
    works("udp-check", Back, MANY, "send|send-binary|expect|comment ...", "A step of 'option udp-check'; the first one sends.", udp_check::udp_check).datagrams(),
    works("option dns-check", Back, 1, "<name>", "Checks a DNS server by a query for a name.", check::option).datagrams(),
    works("option dht-check", Back, 0, "", "Checks a node of BitTorrent's DHT by a ping.", check::option).datagrams(),

    works("http-request", Front, MANY, "use-service prometheus-exporter [if|unless <condition>]", "In 'mode http', which requests are answered with metrics; conditions ask for 'path', 'path_beg' and 'src'. docs/metrics.md has more.", pages::http_request)
        .not_in_defaults().requests(),
    works("monitor-uri", Front, 1, "<uri>", "A request that is answered with 200 as long as the process takes connections.", pages::monitor_uri).requests(),
    works("stats enable", Both, 0, "", "Answers with a page of statistics; every other word of this family does so too.", pages::stats).requests(),
    works("stats uri", Both, 1, "<prefix>", "What the addresses of that page begin with; ';csv' behind it asks for it as a table.", pages::stats)
        .default("/haproxy?stats").requests(),
    works("stats refresh", Both, 1, "<time>", "How often browsers ask for it again, in seconds.", pages::stats)
        .default("not by themselves").requests(),
    works("stats scope", Both, 1, "<proxy>|.", "Shows this proxy, and others that are named like this; '.' is its own.", pages::stats)
        .default("all").requests(),
    works("stats show-node", Both, 1, "[<name>]", "Shows the name of the instance, or this one.", pages::stats).requests(),
    works("stats show-desc", Both, MANY, "[<text>]", "Shows the description of the instance, or this one.", pages::stats).requests(),
    works("stats hide-version", Both, 0, "", "Doesn't show the program's version.", pages::stats).requests(),
    works("stats auth", Both, 1, "<user>:<password>", "Who may see the page, by the 'Basic' scheme of HTTP; several may be named.", pages::stats)
        .default("everybody").requests(),
    works("stats realm", Both, MANY, "<text>", "What browsers call the login.", pages::stats)
        .default("Tidegate Statistics").requests(),
    works("timeout http-request", Both, 1, "<time>", "Longest time in which a client sends a request.", proxy::timeout)
        .default("'timeout client', else 10s").requests(),
    works("timeout http-keep-alive", Both, 1, "<time>", "Longest silence before a client's next request.", proxy::timeout)
        .default("'timeout http-request'").requests(),
    works("load-server-state-from-file", Back, 1, "global|local|none", "Servers begin as a file from 'show servers state' says: that of 'server-state-file', or one of the backend's own.", state_file::source)
        .default("none"),
    works("server-state-file-name", Back, 1, "[use-backend-name|<path>]", "The backend's own state file.", state_file::name)
        .default("use-backend-name"),

    needed("use-server", Back, "<server> if|unless <condition>", "Which server takes connections that meet a condition.")
        .not_in_defaults(),
    needed("tcp-response", Back, "content|inspect-delay ...", "Rules for what servers send."),
    later("stick-table", Both, "type <type> size <n> ...", "A table of clients.")
        .not_in_defaults(),
    needed("stick", Back, "on|match|store-request|store-response ...", "Keeps clients on the server that a table names.")
        .not_in_defaults(),
    later("log-steps", Front, "<step>...", "When lines of a session are logged."),
    needed("persist", Back, "rdp-cookie[(<name>)]", "Keeps RDP clients on their server."),
    needed("be-unpublished", Back, "", "Keeps traffic away from a backend."),
    later("email-alert", Both, "from|to|mailers|level|myhostname ...", "Mail about servers that change."),
    later("external-check", Back, "command|path ...", "Program of a check."),
    later("filter", Both, "<name> ...", "A filter of streams, such as a bandwidth limit.")
        .meaning("nothing is filtered or limited"),
    needed("transparent", Both, "", "Connects to where the client wanted to go."),
    later("option external-check", Back, "", "Checks by a program.")
        .meaning(CONNECTS),
    later("stats admin", Both, "if|unless <condition>", "Lets the page of statistics change servers.")
        .meaning("the page only shows"),
    needed("stats http-request", Both, "auth|deny|allow ...", "Rules for who may see the page of statistics."),
    no_effect("stats show-legends", Both, "", "the page has no legends"),
    no_effect("stats show-modules", Both, "", "there are no modules"),
    later("option spop-check", Back, "", "Checks an SPOP agent.")
        .meaning(CONNECTS),
    needed("option transparent", Both, "", "Connects to where the client wanted to go."),
    no_effect("option contstats", Front, "", "counters are always current"),
    no_effect("option prefer-last-server", Back, "", HTTP_ONLY),
    no_effect("option use-small-buffers", Both, "", "buffers belong to the rings"),
    never("dispatch", Back, "<address>:<port>", "write a 'server' line instead"),
    never("monitor-net", Front, "<network>", "it is gone from HAProxy; a check that connects is no harm"),
    never("clitimeout", Front, "<time>", "HAProxy removed it; write 'timeout client'"),
    never("contimeout", Back, "<time>", "HAProxy removed it; write 'timeout connect'"),
    never("srvtimeout", Back, "<time>", "HAProxy removed it; write 'timeout server'"),
    never("redisp", Back, "", "HAProxy removed it; write 'option redispatch'"),
    never("redispatch", Back, "", "HAProxy removed it; write 'option redispatch'"),
    never("appsession", Back, "...", REMOVED),
    never("block", Front, "if|unless <condition>", REMOVED),
    never("req*", Both, "...", REMOVED),
    never("rsp*", Both, "...", REMOVED),
    never("option forceclose", Both, "", REMOVED),
    never("use-fcgi-app", Back, "<name>", "FastCGI is for 'mode http', which is not supported"),
    no_effect("bind-process", Both, "<processes>", "there is one process"),
    no_effect("hash-preserve-affinity", Back, "always|maxconn|maxqueue", HTTP_ONLY),
    no_effect("option persist", Back, "", "it concerns cookies"),
    no_effect("retry-on", Back, "<reason>...", "only failed connects can be retried without HTTP"),
    no_effect("unique-id-header", Front, "<name>", HTTP_ONLY),
    no_effect("force-persist", Back, "if|unless <condition>", HTTP_ONLY),
    no_effect("ignore-persist", Back, "if|unless <condition>", HTTP_ONLY),
    no_effect("force-be-switch", Front, "if|unless <condition>", HTTP_ONLY),
    no_effect("declare", Front, "capture ...", HTTP_ONLY),
    no_effect("capture", Front, "...", HTTP_ONLY),
    no_effect("cookie", Back, "<name> ...", HTTP_ONLY),
    no_effect("compression", Both, "...", HTTP_ONLY),
    no_effect("errorfile", Both, "<code> <path>", HTTP_ONLY),
    no_effect("errorfiles", Both, "<section> [<code>...]", HTTP_ONLY),
    no_effect("errorloc", Both, "<code> <url>", HTTP_ONLY),
    no_effect("errorloc302", Both, "<code> <url>", HTTP_ONLY),
    no_effect("errorloc303", Both, "<code> <url>", HTTP_ONLY),
    no_effect("http-after-response", Both, "...", HTTP_ONLY),
    no_effect("http-error", Both, "...", HTTP_ONLY),
    no_effect("http-response", Both, "...", HTTP_ONLY),
    no_effect("http-reuse", Back, "never|safe|aggressive|always", HTTP_ONLY),
    no_effect("http-send-name-header", Back, "[<name>]", HTTP_ONLY),
    no_effect("max-keep-alive-queue", Back, "<number>", HTTP_ONLY),
    no_effect("max-session-srv-conns", Front, "<number>", HTTP_ONLY),
    no_effect("monitor", Front, "fail if|unless <condition>", HTTP_ONLY),
    no_effect("redirect", Both, "...", HTTP_ONLY),
    no_effect("timeout tarpit", Both, "<time>", HTTP_ONLY),
    no_effect("crt", Front, "<path> ...", TLS_ONLY),
    no_effect("ssl-f-use", Front, "...", TLS_ONLY),
    no_effect("quic-initial", Front, "...", QUIC_ONLY),
    no_effect("option accept-*", Front, "", HTTP_ONLY),
    no_effect("option checkcache", Back, "", HTTP_ONLY),
    no_effect("option disable-h2-upgrade", Front, "", HTTP_ONLY),
    no_effect("option forwarded", Both, "...", HTTP_ONLY),
    no_effect("option forwardfor", Both, "...", HTTP_ONLY),
    no_effect("option h1-case-adjust-bogus-client", Front, "", HTTP_ONLY),
    no_effect("option h1-case-adjust-bogus-server", Back, "", HTTP_ONLY),
    no_effect("option http-*", Both, "", HTTP_ONLY),
    no_effect("option http_proxy", Both, "", HTTP_ONLY),
    no_effect("option httpclose", Both, "", HTTP_ONLY),
    no_effect("option idle-close-on-response", Front, "", HTTP_ONLY),
    no_effect("option originalto", Both, "...", HTTP_ONLY),
];
