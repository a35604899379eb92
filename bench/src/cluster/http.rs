//! Reads a page of metrics: one GET, no more HTTP than that.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// What a member counts, by name; samples that differ in labels only are added up.
#[derive(Debug, Default)]
pub(crate) struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    pub(crate) async fn read(address: &str) -> anyhow::Result<Self> {
        let page = tokio::time::timeout(PATIENCE, get(address, "/metrics")).await.with_context(|| format!("no metrics from {address} for {PATIENCE:?}"))??;
        Ok(Self::parse(&page))
    }

    fn parse(page: &str) -> Self {
        let mut samples = HashMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if let Ok(value) = value.parse::<f64>() {
                *samples.entry(name.split('{').next().unwrap_or(name).to_owned()).or_insert(0.0) += value;
            }
        }
        Self(samples)
    }
}

/// In HTTP/1.0, whose answers come in one piece and end with the connection.
async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{address}{path} answers {status}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_are_added_up_and_comments_skipped() {
        let page = "# HELP a A.\na 3\nb{x=\"1\"} 2\nb{x=\"2\"} 2.5\nc NaN_or_other\n";
        let metrics = Metrics::parse(page);
        assert_eq!([metrics.get("a"), metrics.get("b"), metrics.get("c")], [Some(3.0), Some(4.5), None]);
    }
}
