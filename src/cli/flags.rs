//! HAProxy's single-dash words as a table: what each does here, and its line of help.
//!
//! Clap knows neither `-db` nor `-sf 1 2 3` as HAProxy means them, so the flags are parsed by hand
//! from `FLAGS`. What HAProxy has and can't have an effect here is in the table too: service files
//! and scripts hold it.

use std::path::PathBuf;

use super::Invocation;
use crate::process::TakeOver;

/// Options of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `-f`, in order.
    pub files: Vec<PathBuf>,
    /// `-c`
    pub check: bool,
    /// `-cc`: a condition to evaluate instead.
    pub condition: Option<String>,
    /// `-V`
    pub verbose: bool,
    /// `-q`
    pub quiet: bool,
    /// `-d`
    pub debug: bool,
    /// `-db`: stay in the foreground whatever the configuration says.
    pub foreground: bool,
    /// `-D`
    pub daemon: bool,
    /// `-W`, `-Ws`: end as HAProxy's master process does.
    pub worker: bool,
    /// `-Ws`: under systemd, in the foreground.
    pub supervised: bool,
    /// `-S`: an address for the runtime socket of HAProxy's master, with bind parameters.
    pub master_socket: Option<String>,
    /// `-p`
    pub pidfile: Option<PathBuf>,
    /// `-C`: directory to change to first.
    pub directory: Option<PathBuf>,
    /// `-L`: what HAPROXY_LOCALPEER is.
    pub local_peer: Option<String>,
    /// `-n`: overrides the configured `maxconn`.
    pub maxconn: Option<u32>,
    /// `-N`: `maxconn` of proxies that set none.
    pub proxy_maxconn: Option<u32>,
    /// `-m`: bytes of memory of the process.
    pub memory_limit: Option<u64>,
    /// `-dW`: warnings are errors.
    pub warnings_fatal: bool,
    /// `-dD`: more is said about what is allowed.
    pub diagnose: bool,
    /// `-dr`: names that don't resolve are no error.
    pub ignore_resolution_failures: bool,
    /// `-dR`: one socket for each listener.
    pub no_reuseport: bool,
    /// `-dS`: nothing is spliced.
    pub no_splice: bool,
    /// `-4`: names have IPv4 addresses only.
    pub ipv4_only: bool,
    /// `-sf`, `-st`, `-x`.
    pub take_over: Option<TakeOver>,
    /// What was asked for and is not done.
    pub notices: Vec<String>,
}

/// What a flag does.
#[derive(Clone, Copy)]
enum Effect {
    Set(fn(&mut Options)),
    Take(fn(&mut Options, &str) -> Result<(), String>),
    /// Takes every word up to the next flag.
    Pids {
        hard: bool,
    },
    Print(fn() -> Invocation),
    /// Accepted: what it concerns isn't there. Service files hold it as a matter of course.
    Idle,
    /// Accepted and mentioned: what it would print isn't there.
    Mentioned(&'static str),
}

/// A flag, its argument's name and its line of help. A name that ends in `*` stands for all words
/// that begin with it.
struct Flag {
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    effect: Effect,
}

const fn flag(
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    effect: Effect,
) -> Flag {
    Flag {
        name,
        argument,
        help,
        effect,
    }
}

#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    flag("-f", "FILE", "reads a configuration file, or the *.cfg files of a directory (repeatable);",
        Effect::Take(|o, v| { o.files.push(v.into()); Ok(()) })),
    flag("--", "FILE...", "the same for every argument that follows", Effect::Idle),
    flag("-c", "", "checks the configuration and exits: 0 valid, 1 errors, 2 no listener",
        Effect::Set(|o| o.check = true)),
    flag("-cc", "COND", "evaluates a condition and exits: 0 true, 1 false, 2 error",
        Effect::Take(|o, v| { o.condition = Some(v.to_owned()); Ok(()) })),
    flag("-C", "DIR", "changes to a directory first",
        Effect::Take(|o, v| { o.directory = Some(v.into()); Ok(()) })),
    flag("-D", "", "goes to the background once everything is ready", Effect::Set(|o| o.daemon = true)),
    flag("-db", "", "stays in the foreground, whatever the configuration says",
        Effect::Set(|o| o.foreground = true)),
    flag("-d", "", "foreground with the program's own diagnostics", Effect::Set(|o| o.debug = true)),
    flag("-W", "", "ends as HAProxy's master does (130 after SIGINT); there is no second process",
        Effect::Set(|o| o.worker = true)),
    flag("-Ws", "", "the same in the foreground, for a systemd service of type notify",
        Effect::Set(|o| { o.worker = true; o.supervised = true; })),
    flag("-S", "ADDR[,PARAM...]", "opens a runtime socket with all rights in place of HAProxy's master's",
        Effect::Take(|o, v| { o.master_socket = Some(v.to_owned()); Ok(()) })),
    flag("-p", "FILE", "writes the process id to a file",
        Effect::Take(|o, v| { o.pidfile = Some(v.into()); Ok(()) })),
    flag("-n", "N", "sets maxconn in place of the configured one",
        Effect::Take(|o, v| { o.maxconn = positive("-n", v)?; Ok(()) })),
    flag("-N", "N", "sets maxconn of the proxies that have none",
        Effect::Take(|o, v| { o.proxy_maxconn = positive("-N", v)?; Ok(()) })),
    flag("-m", "MB", "bounds the memory of the process, in place of 'memory-limit'",
        Effect::Take(|o, v| { o.memory_limit = positive("-m", v)?.map(|mb| u64::from(mb) << 20); Ok(()) })),
    flag("-L", "NAME", "sets HAPROXY_LOCALPEER, the host's name by default",
        Effect::Take(|o, v| { o.local_peer = Some(v.to_owned()); Ok(()) })),
    flag("-sf", "PID...", "ends these processes softly once this one listens", Effect::Pids { hard: false }),
    flag("-st", "PID...", "ends these processes at once when this one listens", Effect::Pids { hard: true }),
    flag("-x", "SOCKET", "takes the listening sockets of the process behind a runtime socket",
        Effect::Take(|o, v| { taking_over(o).socket = Some(v.into()); Ok(()) })),
    flag("-q", "", "prints no messages, unless -V is given too", Effect::Set(|o| o.quiet = true)),
    flag("-V", "", "says more (with -c: that the file is valid)", Effect::Set(|o| o.verbose = true)),
    flag("-dW", "", "takes warnings for errors", Effect::Set(|o| o.warnings_fatal = true)),
    flag("-dD", "", "says more about what is allowed and odd", Effect::Set(|o| o.diagnose = true)),
    flag("-dr", "", "starts although names of servers don't resolve",
        Effect::Set(|o| o.ignore_resolution_failures = true)),
    flag("-dR", "", "one socket for each listener, shared by all shards, in place of SO_REUSEPORT",
        Effect::Set(|o| o.no_reuseport = true)),
    flag("-dS", "", "splices nothing, as 'nosplice'", Effect::Set(|o| o.no_splice = true)),
    flag("-4", "", "resolves names to IPv4 addresses only", Effect::Set(|o| o.ipv4_only = true)),
    flag("-v", "", "prints the version", Effect::Print(|| Invocation::Version)),
    flag("-vv", "", "prints the version, the build and what this kernel can do",
        Effect::Print(|| Invocation::VersionDetails)),
    flag("-h", "", "prints this", Effect::Print(|| Invocation::Help)),
    flag("-dM*", "", "", Effect::Idle),
    flag("-dI", "", "", Effect::Idle),
    flag("-de", "", "", Effect::Idle),
    flag("-dp", "", "", Effect::Idle),
    flag("-dG", "", "", Effect::Idle),
    flag("-dV", "", "", Effect::Idle),
    flag("-dF", "", "", Effect::Idle),
    flag("-dZ", "", "", Effect::Idle),
    flag("-dL", "", "", Effect::Mentioned("the program is one file")),
    flag("-dC*", "", "", Effect::Mentioned("the configuration is not printed")),
    flag("-dK*", "", "", Effect::Mentioned("'tidegate help' prints keywords")),
    flag("-dt*", "", "", Effect::Mentioned("there are no traces")),
];

fn positive(name: &str, value: &str) -> Result<Option<u32>, String> {
    let number: u32 = value
        .parse()
        .map_err(|_| format!("'{name}' expects a number, not '{value}'"))?;
    Ok((number > 0).then_some(number))
}

fn taking_over(options: &mut Options) -> &mut TakeOver {
    options.take_over.get_or_insert_default()
}

/// The flag that a word is. A whole name comes before one that the word only begins with.
fn find(word: &str) -> Option<&'static Flag> {
    let whole = FLAGS.iter().find(|flag| flag.name == word);
    whole.or_else(|| {
        FLAGS.iter().find(|flag| {
            let prefix = flag.name.strip_suffix('*');
            prefix.is_some_and(|prefix| word.starts_with(prefix))
        })
    })
}

/// Parses the arguments of a run.
pub(super) fn parse(arguments: &[String]) -> Result<Invocation, String> {
    let mut options = Options::default();
    let mut words = arguments.iter().peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            options.files.extend(words.map(PathBuf::from));
            break;
        }
        let Some(flag) = find(word) else {
            return Err(format!("unknown argument '{word}'"));
        };
        match flag.effect {
            Effect::Set(set) => set(&mut options),
            Effect::Take(take) => match words.next() {
                Some(value) => take(&mut options, value)?,
                None => return Err(format!("'{word}' expects {}", flag.argument)),
            },
            Effect::Pids { hard } => {
                let from = taking_over(&mut options);
                from.hard = hard;
                while let Some(list) = words.next_if(|word| !word.starts_with('-')) {
                    pids(word, list, &mut from.pids)?;
                }
            }
            Effect::Print(print) => return Ok(print()),
            Effect::Idle => {}
            Effect::Mentioned(reason) => {
                let text = format!("'{word}' is accepted and has no effect: {reason}.");
                options.notices.push(text);
            }
        }
    }
    // No process and no socket: `-sf $(cat pid)` of a first start.
    if options
        .take_over
        .as_ref()
        .is_some_and(|from| from.pids.is_empty() && from.socket.is_none())
    {
        options.take_over = None;
    }
    // Who wants to hear more hears it, as with HAProxy.
    options.quiet &= !options.verbose;
    if options.files.is_empty() && options.condition.is_none() {
        return Err("no configuration file: give one with -f FILE".to_owned());
    }
    Ok(Invocation::Run(Box::new(options)))
}

/// Process ids, in one word or several. None is 0 or negative: those name whole groups.
fn pids(flag: &str, list: &str, pids: &mut Vec<i32>) -> Result<(), String> {
    for text in list.split_whitespace() {
        match text.parse() {
            Ok(pid) if pid > 0 => pids.push(pid),
            _ => return Err(format!("{flag} option: '{text}' is not a process id")),
        }
    }
    Ok(())
}

/// A line for each flag that does something, and one for the others.
pub(super) fn help() -> String {
    let mut text = String::new();
    let mut idle: Vec<&str> = Vec::new();
    for flag in FLAGS {
        if flag.help.is_empty() {
            idle.push(flag.name.trim_end_matches('*'));
            continue;
        }
        let head = format!("{} {}", flag.name, flag.argument);
        text.push_str(&format!("  {head:<19} {}\n", flag.help));
    }
    text.push_str(&format!("  {}\n", idle.join(" ")));
    text.push_str(&format!("  {:<19} accepted, and without effect here\n", ""));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn options(text: &str) -> Options {
        match parse(&words(text)) {
            Ok(Invocation::Run(options)) => *options,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn single_dash_words_are_whole_words() {
        let options = options("-db -V -f a.cfg -p /run/x.pid -n 100 -- b.cfg -c");
        assert!(options.foreground && options.verbose && !options.debug && !options.daemon);
        assert!(!options.check);
        assert_eq!(options.files, ["a.cfg", "b.cfg", "-c"].map(PathBuf::from));
        assert_eq!(options.maxconn, Some(100));
        assert_eq!(parse(&words("-vv")), Ok(Invocation::VersionDetails));
        assert_eq!(parse(&words("-v")), Ok(Invocation::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| parse(&words(text)).unwrap_err();
        assert_eq!(error("-f"), "'-f' expects FILE");
        assert_eq!(error("-zz"), "unknown argument '-zz'");
        assert!(error("-c").contains("-f FILE"));
        assert!(error("-f a -n x").contains("expects a number"));
        assert!(error("-f a -sf 1 x").contains("'x' is not a process id"));
        assert!(error("-f a -st 0").contains("'0' is not a process id"));
    }

    #[test]
    fn a_service_file_of_haproxys_is_understood() {
        let options = options("-Ws -f /etc/h.cfg -p /run/h.pid -S /run/m.sock,mode,600 -q");
        assert!(options.worker && options.supervised && options.quiet);
        assert_eq!(
            options.master_socket.as_deref(),
            Some("/run/m.sock,mode,600")
        );
        assert_eq!(options.pidfile, Some(PathBuf::from("/run/h.pid")));
    }

    #[test]
    fn numbers_go_where_they_belong() {
        let options = options("-f a -n 70 -N 7 -m 64 -L peer -4 -dr -dD -dR -dS -dW");
        assert_eq!(
            (options.maxconn, options.proxy_maxconn),
            (Some(70), Some(7))
        );
        assert_eq!(options.memory_limit, Some(64 << 20));
        assert_eq!(options.local_peer.as_deref(), Some("peer"));
        assert!(options.ipv4_only && options.ignore_resolution_failures && options.diagnose);
        assert!(options.no_reuseport && options.no_splice && options.warnings_fatal);
    }

    #[test]
    fn a_list_of_processes_ends_at_the_next_flag() {
        let from = |text: &str| options(text).take_over;
        let soft = from("-f a -sf 12 34 -q").unwrap();
        assert_eq!((soft.pids, soft.hard), (vec![12, 34], false));
        let hard = from("-f a -x /run/s -st 5").unwrap();
        assert_eq!((hard.pids, hard.hard), (vec![5], true));
        assert_eq!(hard.socket, Some(PathBuf::from("/run/s")));
        assert_eq!(from("-sf -f a"), None);
    }

    #[test]
    fn what_can_have_no_effect_is_accepted() {
        let idle = options("-f a -dM -dM0x5a -dMno-merge -dI -de -dp -dG -dV -dF -dZ");
        assert_eq!(idle.notices, Vec::<String>::new());
        let mentioned = options("-f a -dC -dCkey -dKcfg -dt -dL");
        assert_eq!(mentioned.notices.len(), 5);
    }

    #[test]
    fn every_flag_stands_once_in_the_table_and_in_the_help() {
        let help = help();
        for (index, flag) in FLAGS.iter().enumerate() {
            let before = &FLAGS[..index];
            assert!(
                before.iter().all(|other| other.name != flag.name),
                "{}",
                flag.name
            );
            let name = format!(" {}", flag.name.trim_end_matches('*'));
            assert!(help.contains(&name), "{name}");
        }
    }
}
