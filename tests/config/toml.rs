//! Configurations in TOML.

use std::path::{Path, PathBuf};

use tidegate::config::convert::Format;
use tidegate::config::plan::Plan;
use tidegate::config::{self, Diagnostic};

use crate::convert::converted;
use crate::world::{Case, World, cases, printed};

/// A plan as text, without the places in files.
fn shape(plan: &Plan) -> String {
    let text = format!("{plan:#?}");
    let kept = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("place: "));
    kept.collect::<Vec<_>>().join("\n")
}

fn plan(file: &str, text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
    config::load_text(file, text, &World::that_knows_all())
}

/// A text, the same in TOML, and the text that is made of that again give one plan.
fn same_in_toml(title: &str, text: &str) {
    let (expected, _) = plan("a.cfg", text);
    let expected = expected.unwrap_or_else(|| panic!("{title} loads"));
    let toml = converted("a.cfg", text, Format::HaProxy, Format::Toml).text;
    let back = converted("a.toml", &toml, Format::Toml, Format::HaProxy).text;
    for (file, text) in [("a.toml", &toml), ("b.cfg", &back)] {
        let (plan, messages) = plan(file, text);
        let plan = plan.unwrap_or_else(|| panic!("{title}\n{text}\n{}", printed(&messages)));
        assert_eq!(shape(&plan), shape(&expected), "{title}\n{text}");
    }
    // What was converted once stays as it is.
    let again = converted("b.cfg", &back, Format::HaProxy, Format::Toml).text;
    assert_eq!(again, toml, "{title}");
}

pub(crate) fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let paths = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_config = |path: &PathBuf| path.extension().is_some_and(|end| end == "cfg");
    let paths: Vec<PathBuf> = paths.filter(is_config).collect();
    assert!(paths.len() > 3);
    paths
}

#[test]
fn shipped_configs_are_the_same_in_toml() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        same_in_toml(&path.to_string_lossy(), &text);
    }
}

#[test]
fn the_shipped_toml_says_what_the_text_says() {
    let text = plan("a.cfg", include_str!("../../conf/minimal.cfg"))
        .0
        .unwrap();
    let toml = plan("a.toml", include_str!("../../conf/minimal.toml"))
        .0
        .unwrap();
    assert_eq!(shape(&toml), shape(&text));
}

#[test]
fn good_snippets_are_the_same_in_toml() {
    let mut count = 0;
    for case in cases(include_str!("../data/messages.txt")) {
        if plan("a.cfg", &case.text).0.is_some() {
            same_in_toml(&case.title, &case.text);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} good cases");
}

#[test]
fn order_that_matters_is_kept() {
    let text = "\
global
    maxconn 9
global
    nbthread 2
defaults
    timeout client 1s
listen a
    bind :1
    default-server weight 2
    server a 1.1.1.1:1
    default-server weight 3
    server b 1.1.1.1:2
defaults named
    timeout client 2s
    log /dev/log local0
listen b
    bind :2
    no log
    log /dev/log local1
defaults other from named
    retries 1
listen c from named
    bind :3
    option tcplog
    timeout client 5s
    no option tcplog
    option redispatch
    default option redispatch
";
    same_in_toml("defaults between proxies, parameters between servers", text);
}

#[test]
fn a_toml_file_sets_variables() {
    let text = "[global]\nlog-tag = '\"${TAG-none}\"'\nsetenv = 'PORT 99'\n\
                maxconn = '\"1$PORT\"'\n[listen.l]\nbind = '\":$PORT\"'\n";
    let (plan, messages) = plan("t.toml", text);
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    assert_eq!(plan.global.log_tag, "none");
    assert_eq!(plan.global.maxconn, Some(199));
    let endpoint = format!("{:?}", plan.listeners[0].endpoint);
    assert!(endpoint.contains(":99"), "{endpoint}");
}

#[test]
fn messages_about_toml_are_exact() {
    let (mut now, mut wrong) = (String::new(), Vec::new());
    let all = cases(include_str!("../data/toml_messages.txt"));
    assert!(all.len() >= 20);
    for Case {
        title,
        text,
        expected,
    } in all
    {
        let (plan, messages) = plan("t.toml", &text);
        let got = printed(&messages);
        let is_fatal = messages.iter().any(Diagnostic::is_fatal);
        assert_eq!(plan.is_some(), !is_fatal, "{title}");
        now.push_str(&format!("=== {title}\n{text}---\n{got}"));
        if got != expected {
            wrong.push(format!("{title}\n--- expected\n{expected}--- got\n{got}"));
        }
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toml_messages.txt");
    std::fs::write(&copy, now).unwrap();
    let copy = copy.display();
    assert!(
        wrong.is_empty(),
        "{}\nall as they are now: {copy}",
        wrong.join("\n")
    );
}

#[test]
fn files_of_both_formats_can_be_given() {
    let mut world = World::that_knows_all();
    let defaults = "defaults\n    timeout client 3s\n";
    let listen =
        "[listen.l]\nbind = ':80'\nserver = [{ name = 's', address = 'a:1', weight = 7 }]\n";
    world.files.insert("a.cfg".into(), defaults.to_owned());
    world.files.insert("b.toml".into(), listen.to_owned());
    let (plan, messages) = config::load(&["a.cfg".into(), "b.toml".into()], &world);
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let proxy = &plan.proxies[0];
    assert_eq!(proxy.front.as_ref().unwrap().timeout_client_ms, 3_000);
    let server = &proxy.back.as_ref().unwrap().servers[0];
    assert_eq!((server.weight, server.place.as_str()), (7, "b.toml:3"));
}

/// The example of the documentation is one that works, and says what the text beside it says.
#[test]
fn the_documented_example_loads() {
    let page = include_str!("../../docs/toml.md");
    let block = |language: &str| {
        let begin = format!("```{language}\n");
        let (_, rest) = page.split_once(&begin).expect("an example");
        rest.split_once("```").expect("its end").0
    };
    let (toml, messages) = plan("t.toml", block("toml"));
    let toml = toml.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let (text, _) = plan("t.cfg", block("haproxy"));
    assert_eq!(shape(&toml), shape(&text.expect("the text loads")));
}
