//! What bench/peers makes of the output of wrk, iperf3 and redis-benchmark, and of the figures of
//! several rounds.
//!
//! The bench itself is a program without a test harness; the files with its readers and its
//! arithmetic are included here.

#[path = "../bench/peers/tools/output.rs"]
mod output;
#[path = "../bench/peers/spread.rs"]
mod spread;

use spread::Spread;

use output::{Iperf, Redis, Wrk, read_iperf, read_redis, read_wrk};

/// What wrk prints before the line of the script.
const WRK_HEAD: &str = "\
Running 1s test @ http://127.0.0.1:8080/64
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   734.44us  208.27us   6.07ms   93.47%
    Req/Sec    87.04k     4.12k   91.30k    90.91%
  95331 requests in 1.10s, 13.27MB read
Requests/sec:  86655.18
Transfer/sec:     12.06MB
";

const WRK_FIGURES: &str = "figures requests=95331 bytes=13918326 duration=1100121 status=0 read=0 \
    connect=0 write=0 timeout=0 p50=702 p999=2913 p99=1301\n";

fn wrk(change: (&str, &str)) -> String {
    assert!(WRK_FIGURES.contains(change.0));
    format!("{WRK_HEAD}{}", WRK_FIGURES.replace(change.0, change.1))
}

#[test]
fn figures_of_wrk_are_read_by_name() {
    let expected = Wrk {
        requests: 95_331,
        seconds: 1.100_121,
        bytes: 13_918_326,
        p50_us: 702.0,
        p99_us: 1_301.0,
        p999_us: 2_913.0,
    };
    assert_eq!(read_wrk(&format!("{WRK_HEAD}{WRK_FIGURES}")), Ok(expected));
}

#[test]
fn every_kind_of_error_of_wrk_voids_its_run() {
    for (name, message) in [
        ("connect", "wrk counted 3 failed connects"),
        ("read", "wrk counted 3 failed reads"),
        ("write", "wrk counted 3 failed writes"),
        ("timeout", "wrk counted 3 timeouts"),
        ("status", "wrk counted 3 answers with an error status"),
    ] {
        let text = wrk((&format!(" {name}=0"), &format!(" {name}=3")));
        assert_eq!(read_wrk(&text), Err(message.to_owned()));
    }
}

#[test]
fn a_run_of_wrk_without_its_figures_is_void() {
    assert_eq!(read_wrk(WRK_HEAD), Err("wrk printed no figures".to_owned()));
    let cut_off = wrk((" timeout=0", ""));
    let missing = "wrk printed no figure timeout";
    assert_eq!(read_wrk(&cut_off), Err(missing.to_owned()));
    let not_a_number = wrk(("p999=2913", "p999=nan"));
    let missing = "wrk printed no figure p999";
    assert_eq!(read_wrk(&not_a_number), Err(missing.to_owned()));
    let nothing = wrk(("requests=95331", "requests=0"));
    assert_eq!(read_wrk(&nothing), Err("wrk had no answer".to_owned()));
}

#[test]
fn the_script_of_wrk_names_every_figure_that_is_read() {
    for pair in WRK_FIGURES.split_whitespace().skip(1) {
        let (name, _) = pair.split_once('=').expect("a figure has a value");
        let assigned = format!(" {name} = ");
        assert!(output::WRK_SCRIPT.contains(&assigned), "{name}");
    }
}

#[test]
fn bytes_of_wrk_are_those_of_its_answers_and_what_the_end_cut_off() {
    let with_bytes = |bytes: u64| Wrk {
        requests: 100,
        seconds: 1.0,
        bytes,
        p50_us: 1.0,
        p99_us: 1.0,
        p999_us: 1.0,
    };
    assert!(!with_bytes(14_599).bytes_fit(146, 4));
    assert!(with_bytes(14_600).bytes_fit(146, 4));
    assert!(with_bytes(14_600 + 4 * 146).bytes_fit(146, 4));
    assert!(!with_bytes(14_601 + 4 * 146).bytes_fit(146, 4));
}

/// The parts of a result of iperf3 that count, two streams: what was sent and what arrived.
fn iperf(streams: [(u64, u64); 2]) -> String {
    let streams = streams.map(|(sent, received)| {
        format!(
            r#"{{ "sender": {{ "bytes": {sent}, "sender": true }},
                  "receiver": {{ "bytes": {received}, "sender": true }} }}"#
        )
    });
    format!(
        r#"{{ "start": {{ "version": "iperf 3.12" }}, "intervals": [], "end": {{
            "streams": [{}],
            "sum_sent": {{ "seconds": 1.000108, "bytes": 1644953600 }},
            "sum_received": {{ "seconds": 1.00086, "bytes": 1638399894 }} }} }}"#,
        streams.join(",")
    )
}

#[test]
fn bytes_of_iperf_are_what_arrived_on_each_stream() {
    let text = iperf([(846_725_120, 843_448_320), (798_228_480, 794_951_574)]);
    let expected = Iperf {
        seconds: 1.000_86,
        streams: vec![843_448_320, 794_951_574],
    };
    assert_eq!(read_iperf(&text, 2), Ok(expected));
}

#[test]
fn an_error_of_iperf_voids_its_run() {
    let text = r#"{ "start": { "connected": [] }, "intervals": [], "end": { },
        "error": "unable to connect to server: Connection refused" }"#;
    let message = "iperf3: unable to connect to server: Connection refused";
    assert_eq!(read_iperf(text, 2), Err(message.to_owned()));
    let message = read_iperf("", 2).expect_err("nothing was printed");
    assert!(message.starts_with("iperf3 printed no result"), "{message}");
}

#[test]
fn a_stream_of_iperf_that_is_missing_or_odd_voids_its_run() {
    let text = iperf([(2000, 1000), (2000, 1000)]);
    let message = "iperf3 had 2 streams instead of 8";
    assert_eq!(read_iperf(&text, 8), Err(message.to_owned()));
    let text = iperf([(2000, 1000), (2000, 0)]);
    let message = "a stream of iperf3 moved nothing";
    assert_eq!(read_iperf(&text, 2), Err(message.to_owned()));
    let text = iperf([(2000, 1000), (2000, 2001)]);
    let message = "iperf3 sent 2000 bytes, and 2001 arrived";
    assert_eq!(read_iperf(&text, 2), Err(message.to_owned()));
}

const REDIS: &str = r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","58309.04","0.555","0.048","0.551","0.799","0.879","2.431"
"GET","60240.96","0.545","0.168","0.543","0.783","0.847","2.975"
"#;

#[test]
fn a_test_of_redis_is_read_by_the_names_of_its_columns() {
    let expected = Redis {
        per_second: 58_309.04,
        p50_us: 551.0,
        p99_us: 879.0,
    };
    assert_eq!(read_redis(REDIS, "SET"), Ok(expected));
    // Another order of columns changes nothing.
    let turned = "\"test\",\"p99_latency_ms\",\"rps\",\"p50_latency_ms\"\n\
        \"GET\",\"0.5\",\"100.0\",\"0.25\"\n";
    let expected = Redis {
        per_second: 100.0,
        p50_us: 250.0,
        p99_us: 500.0,
    };
    assert_eq!(read_redis(turned, "GET"), Ok(expected));
}

#[test]
fn a_test_of_redis_that_is_missing_voids_its_run() {
    let without_get: String = REDIS
        .lines()
        .take(2)
        .flat_map(|line| [line, "\n"])
        .collect();
    let message = "redis-benchmark printed no GET";
    assert_eq!(read_redis(&without_get, "GET"), Err(message.to_owned()));
    let message = "redis-benchmark printed no heading";
    assert_eq!(read_redis("", "GET"), Err(message.to_owned()));
    let stuck = REDIS.replace("60240.96", "0.00");
    let message = "redis-benchmark printed no rps of GET";
    assert_eq!(read_redis(&stuck, "GET"), Err(message.to_owned()));
}

#[test]
fn a_median_is_the_middle_of_the_rounds() {
    let spread = |median, least, most| {
        Some(Spread {
            median,
            least,
            most,
        })
    };
    assert_eq!(Spread::of(&[]), None);
    assert_eq!(Spread::of(&[7.0, 1.0, 2.0]), spread(2.0, 1.0, 7.0));
    assert_eq!(Spread::of(&[7.0, 1.0, 2.0, 4.0]), spread(3.0, 1.0, 7.0));
}

#[test]
fn ratios_are_taken_within_each_round() {
    assert_eq!(Spread::of_ratios(&[]), None);
    // The second round was slow for both, which is in no ratio.
    let expected = Spread {
        median: 2.0,
        least: 1.5,
        most: 2.5,
    };
    let rounds = [(200.0, 100.0), (15.0, 10.0), (250.0, 100.0)];
    assert_eq!(Spread::of_ratios(&rounds), Some(expected));
}
