//! The mysql-utilities applets on real pairs: transcripts of the originals replayed, and laws.
//!
//! In: scripts/servers, the binary. Out: laws. Must not: depend on the order of tests.
//! Read first: tests/repl/pair.rs (the servers), tests/applets/said.rs (how lines are compared).
//! Run: cargo test --test applets
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[allow(dead_code)]
#[path = "repl/pair.rs"]
mod pair;
#[path = "applets/said.rs"]
mod said;
#[path = "applets/stage.rs"]
mod stage;

use said::Said;
use stage::Stage;

use pair::Recipe;

/// Every transcript of a pair in its daily life, in the order of the originals' own runs.
#[test]
fn a_pair_is_set_up_and_shown_as_by_the_originals() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let stage = Stage::new(recipe);
    stage.replay("30_err_wrong_pw_replicate");
    stage.replay("39_err_same_host_replicate");
    stage.replay("01_mysqlreplicate");
    for name in ["10_health_csv", "10_health_grid", "10_health_tab", "10_health_vertical"] {
        stage.replay(name);
    }
    for name in ["03_mysqlrplshow", "04_mysqlrplshow_v_list", "34_err_show_wrong_discover"] {
        stage.replay(name);
    }
    stage.replay("05_mysqlrplcheck");
    stage.replay("06_mysqlrplcheck_vv");
    for name in ["11_health_v", "12_gtid", "13_elect", "13_elect_v", "36_err_no_cmd"] {
        stage.replay(name);
    }
    for name in ["14_stop", "15_health_stopped", "16_start", "10_health_grid", "17_reset"] {
        stage.replay(name);
    }
}

#[test]
fn roles_change_as_by_the_originals() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let mut stage = Stage::new(recipe);
    stage.replay("01_mysqlreplicate");
    stage.write(0..10);
    stage.pair.catch_up_b();
    stage.pair.a.crash();
    stage.replay("20_failover");
    stage.pair.a.start(&[]);
    stage.replay("21_rejoin_mysqlreplicate");
    stage.write_on_b(10..20);
    stage.replay("23_switchover_back");
    stage.pair.catch_up_b();
    assert_eq!(stage.rows_of_both(), (20, 20));
}

/// By a link's name as well as by an argument.
#[test]
fn a_link_is_the_applet() {
    let folder = std::env::temp_dir().join(format!("tandem-links-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary directory");
    for name in ["mysqlreplicate", "mysqlrpladmin", "mysqlrplcheck", "mysqlrplshow"] {
        let link = folder.join(name);
        let _none_left = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tandem"), &link).expect("a link");
        let output = std::process::Command::new(&link).arg("--version").output().expect("it runs");
        let linked = String::from_utf8(output.stdout).expect("text");
        let named = Said::of(name, &["--version".to_owned()], &[]);
        assert!(linked.starts_with(name), "{linked}");
        assert_eq!(linked, named.text);
    }
    std::fs::remove_dir_all(&folder).expect("our own directory");
}

/// Finding 3: the original opened the replica beside the living source.
#[test]
fn failover_refuses_while_the_source_lives() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let stage = Stage::new(recipe);
    stage.replay("01_mysqlreplicate");
    let said = stage.run("mysqlrpladmin --slave=root:pw@SERVER2 failover");
    assert_eq!(said.code, 1, "{}", said.text);
    assert!(said.has("is alive"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "1");
}
