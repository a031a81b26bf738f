//! The page that `littoral serve` shows, in a real Chromium: under a live load, across a restart, without a mouse, by day and by night.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;
mod served;

use rig::Rig;
use serde_json::{Value, json};
use served::{LONG, Served, sum};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// One page of a browser without a window, spoken to over a pipe.
struct Chromium {
    process: Child,
    orders: ChildStdin,
    told: Receiver<Value>,
    events: Vec<Value>,
    session: String,
    asked: u64,
    _profile: tempfile::TempDir,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.order("Browser.close", json!({}));
        let since = Instant::now();
        while self.process.try_wait().is_ok_and(|ended| ended.is_none()) && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Chromium {
    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = profile.path().join("log");
        let mut command = Command::new("sh");
        // It hears on its third descriptor and answers on its fourth.
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "chromium"]);
        command.args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]);
        // Whatever it asks of others by itself is asked of nobody.
        command.args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().join("profile").display())).arg("about:blank");
        command.env("HOME", profile.path()).stderr(File::create(&log).unwrap());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, mut answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let (tells, told) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
                bytes.pop();
                let answer = serde_json::from_slice(&bytes).expect("documents end with a zero");
                bytes.clear();
                if tells.send(answer).is_err() {
                    return;
                }
            }
        });
        let mut chromium =
            Self { process, orders, told, events: Vec::new(), session: String::new(), asked: 0, _profile: profile };
        let since = Instant::now();
        let page = loop {
            let targets = chromium.call("Target.getTargets", json!({}));
            let pages = targets["targetInfos"].as_array().unwrap();
            if let Some(page) = pages.iter().find(|target| target["type"] == "page") {
                break page["targetId"].clone();
            }
            assert!(since.elapsed() < LONG, "no page: {}", std::fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        };
        let attached = chromium.call("Target.attachToTarget", json!({"targetId": page, "flatten": true}));
        chromium.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            chromium.call(&format!("{domain}.enable"), json!({}));
        }
        chromium
    }

    fn order(&mut self, method: &str, parameters: Value) -> std::io::Result<u64> {
        self.asked += 1;
        let mut order = json!({"id": self.asked, "method": method, "params": parameters});
        if !self.session.is_empty() && !method.starts_with("Browser.") {
            order["sessionId"] = self.session.clone().into();
        }
        self.orders.write_all(format!("{order}\0").as_bytes())?;
        Ok(self.asked)
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        let asked = self.order(method, parameters).unwrap();
        loop {
            let told = self.told.recv_timeout(LONG).unwrap_or_else(|error| panic!("{method}: {error}"));
            if told["id"] != asked {
                self.events.push(told);
                continue;
            }
            assert!(told["error"].is_null(), "{method}: {told}");
            return told["result"].clone();
        }
    }

    /// What an expression is in the page.
    #[track_caller]
    fn is(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.call("Runtime.evaluate", asked);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    #[track_caller]
    fn text(&mut self, selector: &str) -> String {
        self.is(&format!("document.querySelector({selector:?}).innerText")).as_str().unwrap().to_owned()
    }

    /// What stands beside a word of the first database.
    #[track_caller]
    fn figure(&mut self, name: &str) -> String {
        let found = self.is(&format!(
            "[...document.querySelectorAll('details dt')].find(dt => dt.textContent === {name:?})?.nextElementSibling.textContent"
        ));
        found.as_str().unwrap_or_else(|| panic!("the page has no {name}")).to_owned()
    }

    #[track_caller]
    fn until(&mut self, expression: &str) {
        let since = Instant::now();
        while self.is(expression) != true {
            assert!(since.elapsed() < LONG, "not in time: {expression}\n{}", self.is("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    fn opens(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", json!({"url": url}));
        self.until("document.readyState === 'complete'");
    }

    /// What went wrong in the page since it was opened, by its console.
    fn complaints(&self) -> Vec<String> {
        let is_one = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] != "log",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            _ => false,
        };
        self.events.iter().filter(is_one).map(Value::to_string).collect()
    }

    /// What it has asked of the network since it was opened.
    fn requests(&self) -> Vec<String> {
        let asked = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    fn shows(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Keeps a picture, where `LITTORAL_SCREENSHOTS` names a folder for them.
    fn picture(&mut self, name: &str) {
        let told = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let picture = unbase64(told["data"].as_str().unwrap());
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5_000, "{name} is empty");
        if let Some(folder) = std::env::var_os("LITTORAL_SCREENSHOTS") {
            std::fs::write(Path::new(&folder).join(name), picture).unwrap();
        }
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let places = text.bytes().filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for place in places {
        bits = bits << 6 | place as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// The least contrast of any text on its ground (WCAG), as the page is now.
const CONTRAST: &str = "(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parts(c).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b };
  let least = 21;
  for (const e of document.querySelectorAll('h1,h2,li,b,span,dt,dd,th,td,p,button')) {
    if (!e.innerText || !e.checkVisibility()) continue;
    let ground = e;
    while (ground && (parts(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(ground).backgroundColor)].sort((x, y) => y - x);
    least = Math.min(least, (a + .05) / (b + .05));
  }
  return least })()";

fn commit(rig: &Rig, nth: u32) {
    let sql = format!("UPDATE t SET body = 'commit {nth} ' || hex(randomblob(30)) WHERE id % 50 = {}", nth % 50);
    rig.run(["shell", "app.db", &sql]).succeeds();
}

#[test]
fn the_page_tells_the_same_figures_as_metrics_and_status_under_a_live_load_and_across_a_restart() {
    let mut rig = Rig::new();
    rig.set("LITTORAL_REMOTE", &rig.url("remote"));
    rig.set("LITTORAL_VOLUME", "app");
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let worker = |address: &str| {
        let listens = format!("--metrics_listen={address}");
        Served::start(&rig, &["worker", "app.db", &listens, "--sync_interval=200ms"])
    };
    let served = worker("127.0.0.1:0");
    let address = served.address.to_string();
    let mut chromium = Chromium::start();
    chromium.opens(&format!("http://{address}/"));
    chromium.until("document.getElementById('live').textContent.startsWith('live')");

    // It is there with one answer of this server; nobody else is ever asked.
    chromium.until("performance.getEntriesByName('first-contentful-paint').length === 1");
    let home = format!("http://{address}/");
    let requests = chromium.requests();
    assert_eq!(requests.first(), Some(&home), "{requests:?}");
    for request in &requests {
        assert!(request.starts_with(&home) || request.starts_with("data:"), "{request}");
    }
    assert!(requests.len() <= 4, "a page and its figures: {requests:?}");

    // While others commit, what it shows goes on by itself.
    let (mut seen, since) = (std::collections::BTreeSet::new(), Instant::now());
    for nth in 0.. {
        commit(&rig, nth);
        seen.insert(chromium.figure("In the object store"));
        if seen.len() > 3 {
            break;
        }
        assert!(since.elapsed() < LONG, "it stands still: {seen:?}");
    }
    served.until("everything is shipped", |served| sum(&served.metrics(), "wal_lag_lsn", &[]) == 0.0);
    let status = rig.json(["status", "app.db"]);
    let position = status["position"].as_str().unwrap().to_owned();
    chromium.until(&format!("document.querySelector('details').innerText.includes({position:?})"));
    chromium.until("document.querySelector('#verdict').innerText.includes('Yes: everything is safe')");
    let (metrics, figure) = (served.metrics(), |chromium: &mut Chromium, name: &str| chromium.figure(name));
    assert_eq!(figure(&mut chromium, "In the object store"), position);
    let lsn = sum(&metrics, "littoral_position_lsn", &[]);
    assert!(position.ends_with(&format!(".{lsn}")), "{position}, {lsn}");
    assert!(figure(&mut chromium, "Lag").starts_with("0 commits"));
    let owner = status["owner"].as_str().unwrap();
    assert_eq!(figure(&mut chromium, "Owner"), format!("{owner} (epoch {})", status["epoch"]));
    let deepest = sum(&metrics, "delta_chain_length", &[]);
    assert_eq!(figure(&mut chromium, "Deepest chain of deltas"), deepest.to_string());
    assert_eq!(figure(&mut chromium, "Database"), rig.text("app.db"));
    assert!(
        chromium
            .is("document.querySelector('canvas').getAttribute('aria-label')")
            .as_str()
            .unwrap()
            .starts_with("1 chunks")
    );
    assert!(chromium.complaints().is_empty(), "{:?}", chromium.complaints());

    // By day and by night, and whoever sees little.
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        chromium.shows(scheme);
        grounds.push(chromium.is("getComputedStyle(document.body).backgroundColor"));
        let least = chromium.is(CONTRAST).as_f64().unwrap();
        assert!(least >= 4.5, "{scheme}: a contrast of {least}");
        let wide = chromium.is("document.documentElement.scrollWidth <= document.documentElement.clientWidth");
        assert_eq!(wide, true, "{scheme}: it is wider than its window");
        chromium.picture(&format!("dashboard-{scheme}.png"));
    }
    assert_ne!(grounds[0], grounds[1]);

    // Without a mouse: the database is closed and opened, and its terms are asked for.
    chromium.press("Tab", 9);
    assert_eq!(chromium.is("document.activeElement.tagName"), "SUMMARY");
    assert_eq!(chromium.is("getComputedStyle(document.activeElement).outlineStyle"), "solid");
    for open in [false, true] {
        chromium.press("Enter", 13);
        assert_eq!(chromium.is("document.querySelector('details').open"), open);
    }
    chromium.press("Tab", 9);
    assert_eq!(chromium.is("document.activeElement.tagName"), "BUTTON");
    chromium.press("Enter", 13);
    chromium.until("[...document.querySelectorAll('h2')].some(h2 => h2.textContent === 'Terms')");
    let told = chromium.text("details");
    assert!(told.contains(owner) && told.contains("epoch"), "{told}");
    assert!(chromium.complaints().is_empty(), "{:?}", chromium.complaints());

    // The worker is gone: what is shown is said to be old. The next one at that place is found without anybody's doing.
    drop(served);
    chromium.until("document.getElementById('live').textContent.startsWith('not answered')");
    assert!(chromium.text("details").contains(&position), "what was known is gone");
    commit(&rig, 77);
    let served = worker(&address);
    served.until("the next one ships", |served| sum(&served.metrics(), "wal_lag_lsn", &[]) == 0.0);
    let after = rig.json(["status", "app.db"])["position"].as_str().unwrap().to_owned();
    assert_ne!(after, position);
    chromium.until("document.getElementById('live').textContent.startsWith('live')");
    chromium.until(&format!("document.querySelector('details').innerText.includes({after:?})"));
    assert_eq!(chromium.is("document.querySelector('details').open"), true, "what was open is open");
    // All that it complained of is that nobody answered.
    let others: Vec<String> =
        chromium.complaints().into_iter().filter(|complaint| !complaint.contains("ERR_CONNECTION")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn the_page_says_what_is_wrong_before_anything_else_and_shows_what_it_is_given_as_text() {
    let rig = Rig::new();
    // A name that a page which is careless would run.
    let name = "<img src=x onerror=document.title='run'>.db";
    rig.database(name);
    rig.database("fine.db");
    rig.run(["checkpoint", "fine.db"]).succeeds();
    let served = Served::start(&rig, &["serve", "fine.db", name, "--listen", "127.0.0.1:0"]);
    let mut chromium = Chromium::start();
    chromium.opens(&format!("http://{}/", served.address));
    chromium.until("document.getElementById('live').textContent.startsWith('live')");
    let verdict = chromium.text("#verdict");
    let first = verdict.lines().next().unwrap();
    assert_eq!(first, "Am I safe? No", "{verdict}");
    assert!(verdict.contains("nothing of it was ever published"), "{verdict}");
    assert_eq!(chromium.is("document.body.textContent.includes('<img src=x')"), true);
    assert!(chromium.is("document.title").as_str().unwrap().starts_with("unsafe"));
    assert_eq!(chromium.is("document.querySelectorAll('img').length"), 0);
    assert_eq!(chromium.is("document.querySelectorAll('details').length"), 2);
    // On a telephone, too.
    chromium.call(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true}),
    );
    let wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)\
                .map(e => e.tagName + ' ' + e.id + ' ' + e.className + ' ' + e.getBoundingClientRect().right).join()";
    assert_eq!(chromium.is(wide), "", "what is wider than the window");
    chromium.picture("dashboard-unsafe.png");
    assert!(chromium.complaints().is_empty(), "{:?}", chromium.complaints());
}
