//! The token in a conditional UPDATE: the database itself refuses a holder of the past. Works the same in PostgreSQL, and wherever a write can have
//! a condition. `cargo run -p tenure-client --example fencing_sqlite -- FILE`

use std::time::Duration;

use rusqlite::{Connection, params};
use tenure_client::Client;

/// Whether it was written. One statement, hence one transaction: nobody comes between the comparison and the write.
fn write(database: &Connection, token: u64, text: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let token = i64::try_from(token)?; // Below 2^53, so that it fits every database.
    let rows = database.execute("UPDATE report SET text = ?2, token = ?1 WHERE id = 1 AND token <= ?1", params![token, text])?;
    Ok(rows == 1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let database = Connection::open(std::env::args().nth(1).unwrap_or_else(|| ":memory:".into()))?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS report (id INTEGER PRIMARY KEY, text TEXT, token INTEGER NOT NULL);
         INSERT OR IGNORE INTO report VALUES (1, '', 0);",
    )?;

    let first = client.lease("report").duration(Duration::from_secs(2)).acquire().await?;
    println!("first, token {}: written {}", first.token(), write(&database, first.token(), "by the first")?);
    let old_token = first.token();
    first.release().await?;

    let second = client.lease("report").duration(Duration::from_secs(2)).acquire().await?;
    println!("second, token {}: written {}", second.token(), write(&database, second.token(), "by the second")?);
    // The first was paused before its last write, and wakes up now.
    println!("late, token {old_token}: written {}", write(&database, old_token, "by the first, late")?);
    println!("the database says: {}", database.query_row("SELECT text FROM report", [], |row| row.get::<_, String>(0))?);
    second.release().await?;
    Ok(())
}
