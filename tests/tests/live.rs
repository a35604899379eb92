//! `tenure elect`, `heartbeat` and `nodes`: what they print while nodes and candidates come, go and are killed.

use anyhow::ensure;
use rustix::process::Signal;
use tenure_tests::{Cluster, Tool};

/// One line of `-o json`.
fn parsed(line: &str) -> Option<serde_json::Value> {
    serde_json::from_str(line).ok()
}

/// A line whose fields have these values.
async fn line(tool: &Tool, fields: &[(&str, &str)]) -> anyhow::Result<serde_json::Value> {
    tool.line(&format!("{fields:?}"), |line| parsed(line).filter(|line| fields.iter().all(|(field, value)| line[field] == *value))).await
}

#[tokio::test]
async fn elections_are_told_live_and_handed_over() -> anyhow::Result<()> {
    let cluster = Cluster::three("cli-elect").await?;
    let observer = Tool::start(&cluster, &["elect", "main", "--observe", "-o", "json"])?;
    line(&observer, &[("state", "VACANT")]).await?;
    let campaign = |holder: &str, data: &str| Tool::start(&cluster, &["elect", "main", "--duration", "5s", "-o", "json", "--holder", holder, "--data", data]);
    let first = campaign("a", "10.0.0.1:80")?;
    let elected = line(&first, &[("state", "ELECTED"), ("holder", "a"), ("data", "10.0.0.1:80")]).await?;
    let second = campaign("b", "10.0.0.2:80")?;
    line(&second, &[("state", "LED"), ("holder", "a")]).await?;
    let seen = line(&observer, &[("state", "LED"), ("holder", "a"), ("data", "10.0.0.1:80")]).await?;
    ensure!(seen["token"] == elected["token"] && seen["token"].is_u64(), "{seen}");
    // SIGTERM resigns, and that is a good end.
    first.signal(Signal::TERM)?;
    let ended = first.ended().await?.exited(0)?;
    ensure!(ended.err.contains("campaigning for default/main as a") && ended.err.contains("default/main is resigned"), "{ended:?}");
    let next = line(&second, &[("state", "ELECTED"), ("holder", "b")]).await?;
    ensure!(next["token"].as_u64() > elected["token"].as_u64(), "{next}");
    // One that is killed is told too.
    let third = campaign("c", "10.0.0.3:80")?;
    line(&third, &[("state", "LED"), ("holder", "b")]).await?;
    second.signal(Signal::KILL)?;
    line(&third, &[("state", "ELECTED"), ("holder", "c")]).await?;
    line(&observer, &[("state", "LED"), ("holder", "c"), ("data", "10.0.0.3:80")]).await?;

    let wrong = Tool::start(&cluster, &["elect", "main", "--duration", "1ms"])?.ended().await?.exited(2)?;
    ensure!(wrong.err.contains("--duration"), "{wrong:?}");
    let table = Tool::start(&cluster, &["elect", "main", "--observe"])?;
    let header = table.line("a header", |line| line.starts_with("TIME").then(|| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())).await?;
    ensure!(header == ["TIME", "STATE", "HOLDER", "TOKEN", "DATA"], "{header:?}");
    table.line("a row", |line| line.contains("LED").then_some(())).await?;
    cluster.passed()
}

#[tokio::test]
async fn nodes_are_ready_unknown_or_left() -> anyhow::Result<()> {
    let cluster = Cluster::three("cli-nodes").await?;
    let empty = Tool::start(&cluster, &["nodes", "-n", "nodes"])?.ended().await?.exited(0)?;
    ensure!(empty.out.is_empty() && empty.err.contains("No nodes found in namespace nodes"), "{empty:?}");
    let watch = Tool::start(&cluster, &["nodes", "-n", "nodes", "-w", "-o", "json"])?;
    let beat = |name: &str, more: &[&str]| {
        let args = [&["heartbeat", name, "-n", "nodes", "--duration", "5s", "--label", "zone=a", "--data", "10.0.0.1", "-o", "json"], more].concat();
        Tool::start(&cluster, &args)
    };
    let (dies, leaves, restarts) = (beat("dies", &[])?, beat("leaves", &[])?, beat("restarts", &["--no-release"])?);
    for (tool, name) in [(&dies, "dies"), (&leaves, "leaves"), (&restarts, "restarts")] {
        let ready = line(tool, &[("state", "READY")]).await?;
        let seen = line(&watch, &[("name", name), ("state", "Ready")]).await?;
        ensure!(seen["lease"]["token"] == ready["token"] && seen["lease"]["labels"]["zone"] == "a" && seen["lease"]["holderData"] == "10.0.0.1", "{seen}");
    }

    dies.signal(Signal::KILL)?;
    let unknown = line(&watch, &[("name", "dies"), ("state", "Unknown")]).await?;
    ensure!(unknown["since"].is_string(), "{unknown}");
    leaves.signal(Signal::TERM)?;
    let ended = leaves.ended().await?.exited(0)?;
    ensure!(ended.err.contains("nodes/leaves is released: others see at once that it has left"), "{ended:?}");
    line(&watch, &[("name", "leaves"), ("state", "Left")]).await?;

    // Nobody notices a quick restart of one that says nothing.
    restarts.signal(Signal::TERM)?;
    let ended = restarts.ended().await?.exited(0)?;
    ensure!(ended.err.contains("nodes/restarts is not released: others see it as Ready for 5s at most"), "{ended:?}");
    let again = beat("restarts", &[])?;
    let token = line(&again, &[("state", "READY")]).await?["token"].clone();
    watch
        .line("the new token", |line| parsed(line).filter(|line| line["name"] == "restarts" && line["lease"]["token"] == token && line["state"] == "Ready"))
        .await?;

    let table = Tool::start(&cluster, &["nodes", "-n", "nodes", "-l", "zone=a"])?.ended().await?.exited(0)?;
    let rows: Vec<Vec<&str>> = table.out.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let expected = [["NAME", "STATE", "HOLDER"], ["dies", "Unknown", "dies"], ["leaves", "Left", "leaves"], ["restarts", "Ready", "restarts"]];
    ensure!(rows == expected, "{}", table.out);
    let names = Tool::start(&cluster, &["nodes", "-n", "nodes", "-o", "name"])?.ended().await?.exited(0)?;
    ensure!(names.out == "lease/dies\nlease/leaves\nlease/restarts\n", "{names:?}");
    let document = Tool::start(&cluster, &["nodes", "-n", "nodes", "-o", "yaml"])?.ended().await?.exited(0)?;
    ensure!(document.out.contains("- name: dies\n  state: Unknown\n"), "{}", document.out);
    ensure!(Tool::start(&cluster, &["nodes", "-n", "nodes", "-l", "zone=b"])?.ended().await?.exited(0)?.out.is_empty());

    let wrong = Tool::start(&cluster, &["nodes", "-n", "nodes", "-l", "zone in"])?.ended().await?.exited(2)?;
    ensure!(wrong.err.contains("-l/--selector"), "{wrong:?}");
    let wrong = Tool::start(&cluster, &["heartbeat", "--every", "30s"])?.ended().await?.exited(2)?;
    ensure!(wrong.err.contains("--every"), "{wrong:?}");
    let wrong = Tool::start(&cluster, &["heartbeat", "--duration", "1ms"])?.ended().await?.exited(2)?;
    ensure!(wrong.err.contains("--duration"), "{wrong:?}");
    cluster.passed()
}
