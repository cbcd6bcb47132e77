//! The quick start's attack, played by the command that plays it for users.

use std::{collections::BTreeSet, process::Command};

use redoubt::store::{Family, SearchRequest, SearchResponse};

use crate::harness::{Siem, repository};

/// Events of the attack.
pub const EVENTS: u64 = 17;

pub fn quickstart() -> Siem {
    let siem = Siem::new(&[]);
    for entry in std::fs::read_dir(repository("config/samples/quickstart")).unwrap() {
        let path = entry.unwrap().path();
        siem.write(path.file_name().unwrap().to_str().unwrap(), &std::fs::read_to_string(&path).unwrap());
    }
    siem
}

pub fn play(siem: &Siem) {
    let send = |arguments: &[&str], file: &str| {
        let sent = Command::new(env!("CARGO_BIN_EXE_redoubt"))
            .arg("send")
            .args(arguments)
            .arg(repository("config/samples/attack").join(file))
            .output()
            .unwrap();
        assert!(sent.status.success(), "{}\n{}", String::from_utf8_lossy(&sent.stderr), siem.log());
    };
    let url = siem.url("");
    let token = siem.path("data/secrets/ingest/token");
    let token = token.to_str().unwrap();
    send(&["--syslog", &format!("{}:5514", siem.address)], "ssh.log");
    send(&["--to", &url, "--source", "cloudtrail", "--token-file", token], "cloudtrail.json");
    send(&["--to", &url, "--source", "windows", "--token-file", token], "sysmon.ndjson");
}

/// The rules and ids of alerts.
pub fn names_and_ids(found: &SearchResponse) -> Vec<(String, String)> {
    found.hits.iter().map(|hit| (hit.body["rule"]["name"].as_str().unwrap_or_default().to_owned(), hit.id.clone())).collect()
}

async fn alerts(siem: &Siem) -> Vec<(String, String)> {
    names_and_ids(&siem.search(Family::Alerts, SearchRequest { size: 100, ..SearchRequest::default() }).await)
}

#[tokio::test]
async fn the_attack_raises_its_alerts_once_also_over_a_restart_and_a_repetition() {
    let mut siem = quickstart();
    siem.start_ready().await;

    play(&siem);

    siem.until("all alerts are in the store", async || siem.count(Family::Alerts, "").await == 4).await;
    let first: BTreeSet<_> = alerts(&siem).await.into_iter().collect();
    let names: BTreeSet<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["cloudtrail-switched-off", "powershell-encoded-command", "ssh-login-from-bad-address", "ssh-password-guessing"];
    assert_eq!(names, expected.into());
    for text in ["CRITICAL CloudTrail switched off", "because eventName is \"StopLogging\"", "Failed password for root"] {
        siem.until_logged(text).await;
    }
    siem.until_logged("dry run: this webhook would be called").await;

    siem.stop();
    siem.start_ready().await;
    play(&siem);

    siem.until("the repetition is indexed", async || siem.metric("redoubt_events_processed_total", "indexed").await >= EVENTS as f64).await;
    siem.until_empty(8080, "matches").await;
    let second: BTreeSet<_> = alerts(&siem).await.into_iter().collect();
    assert_eq!(first, second);
    siem.stop();
}
