//! The command line: flags and what they change, and the subcommands that only print.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir, program, run};
use crate::support::port::{free_port, listeners_on};
use crate::support::{MockServer, skip, turn};

const TIMEOUTS: &str = "    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n";

/// A file that is valid without a word to say about it.
fn valid() -> String {
    format!(
        "listen l\n{TIMEOUTS}    bind 127.0.0.1:{}\n    server s 127.0.0.1:1\n",
        free_port()
    )
}

/// The same without timeouts: valid, with a warning.
fn warned() -> String {
    valid().replace(TIMEOUTS, "")
}

/// Runs the program on a file: words before `FILE` and after it.
fn run_on(text: &str, arguments: &str) -> (Option<i32>, String, String) {
    let dir = TempDir::new();
    let path = dir.write("test.cfg", text);
    let words = arguments.split_whitespace();
    let words = words.map(|word| {
        if word == "FILE" {
            path.to_str().unwrap()
        } else {
            word
        }
    });
    run(&words.collect::<Vec<_>>())
}

#[test]
fn an_unknown_flag_is_answered_with_the_usage() {
    let _turn = turn::shared();
    let (code, _, errors) = run_on(&valid(), "-f FILE -zz");
    assert_eq!(code, Some(1));
    assert!(errors.contains("Usage"), "{errors}");
    let (code, ..) = run(&[]);
    assert_eq!(code, Some(1));
}

#[test]
fn flags_of_service_files_that_change_nothing_are_accepted() {
    let _turn = turn::shared();
    let flags = "-c -f FILE -dM -dS -de -dp -dG -dV -dr -L here -Ws -p /run/x -S /run/y,mode,600";
    let (code, _, errors) = run_on(&valid(), flags);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    if skip("2.6 does not have these") {
        return;
    }
    let (code, _, errors) = run_on(&valid(), "-c -f FILE -dI -dF -dZ -4 -D -W -sf -st");
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (code, _, errors) = run_on(&valid(), "-c -f FILE -dKcfg");
    assert_eq!(code, Some(0));
    assert!(
        errors.contains("'-dKcfg' is accepted and has no effect"),
        "{errors}"
    );
}

#[test]
fn a_condition_is_answered_by_the_exit_status() {
    let _turn = turn::shared();
    for (condition, code) in [("1", 0), ("0", 1), ("streq(a,a)", 0), ("!streq(a,a)", 1)] {
        let (found, output, errors) = run(&["-cc", condition]);
        assert_eq!(found, Some(code), "{condition}");
        assert_eq!(output + &errors, "", "{condition}");
    }
    let (code, _, errors) = run(&["-cc", "streq(a,"]);
    assert_eq!(code, Some(2));
    let text = "config : Failed to evaluate condition";
    assert!(errors.contains(text), "{errors}");
    let (code, ..) = run(&["-L", "here", "-cc", "streq(\"$HAPROXY_LOCALPEER\",here)"]);
    if !skip("2.6 has no variables there") {
        assert_eq!(code, Some(0));
    }
}

#[test]
fn what_is_only_suspicious_is_said_on_request() {
    let _turn = turn::shared();
    let text = format!("{}.diag \"look here\"\n", valid());
    let (code, _, errors) = run_on(&text, "-c -f FILE");
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (code, _, errors) = run_on(&text, "-c -dD -f FILE");
    assert_eq!(code, Some(0));
    assert!(errors.contains("look here"), "{errors}");
}

#[test]
fn a_list_of_processes_with_something_else_in_it_is_an_error() {
    let _turn = turn::shared();
    let (code, _, errors) = run_on(&valid(), "-f FILE -sf here");
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("-sf option:"), "{errors}");
}

#[test]
fn warnings_are_errors_where_that_is_asked_for() {
    let _turn = turn::shared();
    assert_eq!(run_on(&warned(), "-c -f FILE").0, Some(0));
    let aborted = |text: &str, arguments: &str| {
        let (code, _, errors) = run_on(text, arguments);
        assert_eq!(code, Some(1), "{arguments}: {errors}");
        let text = " : config : Some warnings were found";
        assert!(errors.contains(text), "{errors}");
    };
    aborted(&warned(), "-c -dW -f FILE");
    aborted(&warned(), "-dW -f FILE");
    let text = format!("global\n    zero-warning\n{}", warned());
    aborted(&text, "-c -f FILE");
    aborted(&text, "-f FILE");
    assert_eq!(run_on(&valid(), "-c -dW -f FILE").0, Some(0));
}

#[test]
fn a_quiet_program_says_nothing() {
    let _turn = turn::shared();
    let (code, output, errors) = run_on("listen l\n    nonsense\n", "-q -c -f FILE");
    assert_eq!((code, output + &errors), (Some(1), String::new()));
    let (code, output, errors) = run_on(&warned(), "-q -c -f FILE");
    assert_eq!((code, output + &errors), (Some(0), String::new()));
}

#[test]
fn errors_of_all_files_are_told_in_one_go() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    dir.write("20.cfg", "global\n    maxcon 5\n");
    dir.write("10.cfg", "listen l\n    bind :port\n");
    dir.write(".hidden.cfg", "nonsense\n");
    dir.write("other.txt", "nonsense\n");
    let last = dir.write("30.last", "frontend\n");
    let directory = dir.path().to_str().unwrap();
    if skip("2.6 stops at the first file with an error") {
        return;
    }
    let (code, output, errors) = run(&["-c", "-f", directory, "-f", last.to_str().unwrap()]);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    let places: Vec<&str> = errors
        .lines()
        .filter_map(|line| line.split_once("parsing [")?.1.split_once(']'))
        .map(|(place, _)| place.trim_start_matches(directory))
        .collect();
    let last = format!("{}:1", last.display());
    let last = last.trim_start_matches(directory);
    assert_eq!(places, ["/10.cfg:2", "/20.cfg:2", last], "{errors}");
    assert!(!errors.contains("nonsense"), "{errors}");
}

#[test]
fn a_directory_without_configuration_is_named() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let directory = dir.path().to_str().unwrap();
    let (code, _, errors) = run(&["-c", "-f", directory]);
    assert_eq!(code, Some(1));
    if skip("haproxy shows its usage") {
        return;
    }
    assert!(errors.contains(directory), "{errors}");
}

#[test]
fn a_quiet_file_is_checked_without_a_word() {
    let _turn = turn::shared();
    let text = format!("global\n    quiet\n{}", warned());
    let (code, output, errors) = run_on(&text, "-c -f FILE");
    assert_eq!((code, output + &errors), (Some(0), String::new()));
}

#[test]
fn who_asks_for_more_isnt_silenced() {
    let _turn = turn::shared();
    let quiet = format!("global\n    quiet\n{}", warned());
    for (text, arguments) in [(warned(), "-c -V -q -f FILE"), (quiet, "-c -V -f FILE")] {
        let (code, output, errors) = run_on(&text, arguments);
        assert_eq!(code, Some(0));
        assert_eq!(
            output,
            "Warnings were found.\nConfiguration file is valid\n"
        );
        assert!(errors.contains("missing timeouts"), "{errors}");
    }
    let (code, _, errors) = run_on(&warned(), "-c -V -q -dW -f FILE");
    assert_eq!(code, Some(1));
    assert!(errors.contains("Some warnings were found"), "{errors}");
}

#[test]
fn a_quiet_file_ends_messages_once_it_is_read() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (address, port) = (server.address(), free_port());
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    server s {address}\n");
    let mut balancer = Setup::new(body).global("quiet").start();
    balancer.signal(Signal::SIGUSR1);
    balancer.wait_exit(Duration::from_secs(5));
    assert_eq!(balancer.stderr(), "");
}

#[test]
fn files_are_looked_for_in_the_directory_given() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    dir.write("here.cfg", &valid());
    let directory = dir.path().to_str().unwrap();
    let (code, _, errors) = run(&["-C", directory, "-c", "-f", "here.cfg"]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, ..) = run(&["-c", "-f", "here.cfg"]);
    assert_eq!(code, Some(1));
    let (code, _, errors) = run(&["-C", "/nowhere/at/all", "-c", "-f", "here.cfg"]);
    assert_eq!(code, Some(1), "{errors}");
}

#[test]
fn limits_of_the_command_line_count() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (address, port) = (server.address(), free_port());
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    server s {address}\n");
    let setup = Setup::new(body).global("maxconn 50");
    let balancer = setup
        .arguments(&["-n", "70", "-N", "7", "-m", "96"])
        .start();
    let info = balancer.stats("show info");
    assert!(info.contains("\nMaxconn: 70\n"), "{info}");
    assert_eq!(balancer.stat().text("l", "FRONTEND", "slim"), "7");
    assert!(info.contains("\nMemmax_MB: 96\n"), "{info}");
    balancer.settle();
}

#[test]
fn without_reuseport_a_listener_is_one_socket() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let start = |flags: &[&str]| {
        let (address, port) = (server.address(), free_port());
        let body = format!("listen l\n    bind 127.0.0.1:{port}\n    server s {address}\n");
        (Setup::new(body).shards(4).arguments(flags).start(), port)
    };
    let (balancer, port) = start(&["-dR"]);
    assert_eq!(listeners_on(port), 1);
    balancer.settle();
    let (balancer, port) = start(&[]);
    assert!(listeners_on(port) == 4 || skip("2.6 takes the first thread's"));
    balancer.settle();
}

#[test]
fn a_node_and_its_description_are_in_show_info() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (address, port) = (server.address(), free_port());
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    server s {address}\n");
    let balancer = Setup::new(body)
        .global("node lb-7")
        .global("description the one in the cellar")
        .start();
    let info = balancer.stats("show info");
    assert!(info.contains("\nnode: lb-7\n"), "{info}");
    assert!(
        info.contains("\ndescription: the one in the cellar\n"),
        "{info}"
    );
    balancer.settle();
}

const WRONG: &str =
    "listen l\n    timeout client 1s\n    bind 127.0.0.1:1\n\tsevrer s 127.0.0.1:2\n";

#[test]
fn check_shows_the_line_at_fault() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let (code, output, errors) = run_on(WRONG, "check FILE");
    assert_eq!((code, errors.as_str()), (Some(1), ""), "{output}");
    let message =
        "error: unknown keyword 'sevrer' in 'listen' section; did you mean 'server' maybe ?\n";
    assert!(output.starts_with(message), "{output}");
    assert!(output.contains("test.cfg:4:2\n"), "{output}");
    assert!(
        output.contains("\n4 | \tsevrer s 127.0.0.1:2\n  | \t^^^^^^\n"),
        "{output}"
    );
    assert!(output.ends_with("\n1 error and 0 warnings.\n"), "{output}");
    assert!(!output.contains('\x1b'), "{output:?}");
}

#[test]
fn check_shows_a_line_with_an_open_quote_once() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let text = "global\n    description \"open\n";
    let (code, output, _) = run_on(text, "check FILE");
    assert_eq!(code, Some(1));
    assert!(output.contains("unmatched quote"), "{output}");
    assert!(output.contains("test.cfg:2\n"), "{output}");
    assert_eq!(output.matches("open").count(), 1, "{output}");
    assert_eq!(output.matches('^').count(), 1, "{output}");
}

#[test]
fn check_has_the_codes_of_the_flag() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let (code, output, _) = run_on(&valid(), "check FILE");
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("Valid. It would listen on:\n  127.0.0.1:"),
        "{output}"
    );
    let (code, output, _) = run_on(&warned(), "check FILE");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("\nValid, with 1 warning."), "{output}");
    let (code, output, _) = run_on("backend b\n    server s 127.0.0.1:1\n", "check FILE");
    assert_eq!(code, Some(2), "{output}");
    let (code, output, _) = run_on("", "check /nowhere/at.all");
    assert_eq!(code, Some(1), "{output}");
}

#[test]
fn check_has_colours_only_where_they_are_wanted() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let dir = TempDir::new();
    let path = dir.write("test.cfg", WRONG);
    let coloured = |name: &str| {
        let mut command = Command::new(program());
        command.arg("check").arg(&path).env_remove("NO_COLOR");
        let output = command
            .env(name, "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.stdout.contains(&0x1b)
    };
    assert!(coloured("CLICOLOR_FORCE"));
    assert!(!coloured("NO_COLOR"));
}

#[test]
fn convert_goes_to_the_other_format_and_back() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let dir = TempDir::new();
    let path = dir.write("a.cfg", &valid());
    let toml = dir.path().join("a.toml");
    let (from, to) = (path.to_str().unwrap(), toml.to_str().unwrap());
    let (code, output, errors) = run(&["convert", from, "-o", to]);
    assert_eq!((code, output + &errors), (Some(0), String::new()));
    let (code, output, errors) = run(&["-c", "-V", "-f", to]);
    assert_eq!(
        (code, output.trim()),
        (Some(0), "Configuration file is valid"),
        "{errors}"
    );
    let (code, back, errors) = run(&["convert", "--to", "haproxy", to]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(back.contains("server s 127.0.0.1:1"), "{back}");
    let (code, _, errors) = run(&["convert", "--from", "apache", from]);
    assert_ne!(code, Some(0));
    assert!(
        errors.contains("the formats are haproxy, toml, nginx"),
        "{errors}"
    );
    assert_eq!(run(&["convert", "/nowhere/at.all"]).0, Some(1));
}

#[test]
fn help_explains_a_keyword() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let (code, output, _) = run(&["help", "maxconn"]);
    assert_eq!(code, Some(0));
    assert_eq!(output.matches("maxconn <number>").count(), 3, "{output}");
    let (code, output, _) = run(&["help", "timeout"]);
    assert_eq!(code, Some(0));
    for member in ["timeout client", "timeout connect", "timeout server"] {
        assert!(output.contains(member), "{output}");
    }
    let (_, two_words, _) = run(&["help", "timeout", "client"]);
    assert!(
        two_words.starts_with("timeout client <time>\n"),
        "{two_words}"
    );
    let (code, output, errors) = run(&["help", "balanec"]);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(
        errors.contains("did you mean 'balance' maybe ?"),
        "{errors}"
    );
    let (code, output, _) = run(&["help"]);
    assert_eq!(code, Some(0));
    assert!(output.contains("hard-stop-after"), "{output}");
}

#[test]
fn help_lists_what_is_missing() {
    let _turn = turn::shared();
    if skip("it has no such command") {
        return;
    }
    let (code, output, _) = run(&["help", "--missing"]);
    assert_eq!(code, Some(0));
    assert!(output.lines().count() > 10, "{output}");
    assert!(output.lines().all(|line| line.contains(": ")), "{output}");
    assert!(!output.contains(": maxconn\n"), "{output}");
}

#[test]
fn the_usage_lists_flags_and_commands() {
    let _turn = turn::shared();
    if skip("its usage is its own") {
        return;
    }
    for flag in ["-h", "--help"] {
        let (code, output, _) = run(&[flag]);
        assert_eq!(code, Some(0));
        for part in ["  -sf PID...", "  -dR ", "  demo ", "  check ", "  help "] {
            assert!(output.contains(part), "{part}: {output}");
        }
    }
}
