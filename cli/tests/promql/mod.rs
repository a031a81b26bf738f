//! Of Prometheus' language what alert rules are written in, evaluated over two scrapes: as they were, and as they are.
//!
//! As in Prometheus, a series that was not there before has not grown, and what two sides of an operator do not share falls away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// What was scraped: each series' labels, its name among them, and its value.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Vec<(Labels, f64)>);

impl Scrape {
    pub fn of(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(series).collect())
    }

    /// What Prometheus adds of whom it scrapes.
    pub fn and_up(mut self, is_up: bool) -> Self {
        let labels = [("__name__", "up"), ("job", "littoral")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.0.push((labels.into(), f64::from(u8::from(is_up))));
        self
    }
}

fn series(line: &str) -> (Labels, f64) {
    let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let (name, rest) = key.split_at(key.find('{').unwrap_or(key.len()));
    let inner = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or("");
    let mut labels = Labels::from([("__name__".to_owned(), name.to_owned())]);
    for pair in inner.split("\",").filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        labels.insert(label.to_owned(), value.trim_end_matches('"').to_owned());
    }
    (labels, if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap_or_else(|_| panic!("{line}")) })
}

#[derive(Clone, Debug)]
enum Value {
    Scalar(f64),
    Vector(Vec<(Labels, f64)>),
}

/// What a query is of: two scrapes, and the moment of the second in seconds.
pub struct Query<'a> {
    before: &'a Scrape,
    after: &'a Scrape,
    now: f64,
    tokens: Vec<String>,
    at: usize,
}

/// Whether an alert's query has any result.
pub fn holds(query: &str, before: &Scrape, after: &Scrape, now: f64) -> bool {
    let mut asked = Query { before, after, now, tokens: tokens(query), at: 0 };
    let value = asked.binary(0);
    assert_eq!(asked.at, asked.tokens.len(), "{query}: not read beyond {:?}", &asked.tokens[asked.at..]);
    match value {
        Value::Vector(found) => !found.is_empty(),
        Value::Scalar(_) => panic!("{query} is a number"),
    }
}

fn tokens(query: &str) -> Vec<String> {
    let letters: Vec<char> = query.chars().collect();
    let (mut all, mut at) = (Vec::new(), 0);
    while at < letters.len() {
        let is_word = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | ':');
        let end = match letters[at] {
            ' ' => {
                at += 1;
                continue;
            }
            '"' => at + 2 + letters[at + 1..].iter().position(|letter| *letter == '"').unwrap(),
            letter if is_word(&letter) => {
                letters[at..].iter().position(|letter| !is_word(letter)).map_or(letters.len(), |length| at + length)
            }
            _ if letters[at..].starts_with(&['=', '=']) || letters[at..].starts_with(&['!', '=']) => at + 2,
            _ if letters[at..].starts_with(&['=', '~']) || letters[at..].starts_with(&['!', '~']) => at + 2,
            _ => at + 1,
        };
        all.push(letters[at..end].iter().collect());
        at = end;
    }
    all
}

/// How tightly an operator binds; `None` for what is none.
fn binds(word: &str) -> Option<u8> {
    match word {
        "and" => Some(1),
        "==" | ">" | "<" => Some(2),
        "+" | "-" => Some(3),
        "*" | "/" => Some(4),
        _ => None,
    }
}

/// By what labels the two sides of an operator, or what is summed, belong together; but for a metric's name.
fn key(labels: &Labels, on: Option<&[String]>) -> Labels {
    let wanted = |name: &str| on.map_or(name != "__name__", |on| on.iter().any(|one| one == name));
    labels.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Query<'_> {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens[self.at - 1].clone()
    }

    #[track_caller]
    fn take(&mut self, word: &str) {
        assert_eq!(self.next(), word, "in {:?}", self.tokens);
    }

    /// What stands between brackets, apart by commas.
    fn names(&mut self) -> Vec<String> {
        self.take("(");
        let mut names = Vec::new();
        loop {
            match self.next().as_str() {
                ")" => return names,
                "," => {}
                name => names.push(name.to_owned()),
            }
        }
    }

    fn binary(&mut self, least: u8) -> Value {
        let mut left = self.operand();
        while let Some(binding) = binds(self.peek()).filter(|binding| *binding > least) {
            let operator = self.next();
            let on = (self.peek() == "on").then(|| {
                self.at += 1;
                self.names()
            });
            let right = self.binary(binding);
            left = apply(&operator, left, right, on.as_deref());
        }
        left
    }

    fn operand(&mut self) -> Value {
        let word = self.next();
        match word.as_str() {
            "(" => {
                let value = self.binary(0);
                self.take(")");
                value
            }
            "time" => {
                assert!(self.names().is_empty());
                Value::Scalar(self.now)
            }
            "sum" => {
                self.take("by");
                let by = self.names();
                self.take("(");
                let value = self.vector();
                self.take(")");
                let mut sums: BTreeMap<Labels, f64> = BTreeMap::new();
                value
                    .into_iter()
                    .for_each(|(labels, value)| *sums.entry(key(&labels, Some(&by))).or_default() += value);
                Value::Vector(sums.into_iter().collect())
            }
            "increase" | "rate" => {
                self.take("(");
                let selects = self.selector();
                self.take("[");
                let window = seconds(&self.next());
                self.take("]");
                self.take(")");
                let before: BTreeMap<Labels, f64> = self.before.0.iter().cloned().collect();
                let grew = select(&self.after.0, &selects).filter_map(|(labels, now)| {
                    // One that fell began anew.
                    let grew = before.get(labels).map(|then| if now >= *then { now - then } else { now })?;
                    Some((key(labels, None), if word == "rate" { grew / window } else { grew }))
                });
                Value::Vector(grew.collect())
            }
            "histogram_quantile" => {
                self.take("(");
                let quantile: f64 = self.next().parse().unwrap();
                self.take(",");
                let buckets = self.vector();
                self.take(")");
                Value::Vector(quantiles(quantile, buckets))
            }
            number if number.starts_with(|letter: char| letter.is_ascii_digit()) => {
                Value::Scalar(number.parse().unwrap())
            }
            _ => {
                self.at -= 1;
                let selects = self.selector();
                let found = select(&self.after.0, &selects);
                Value::Vector(found.map(|(labels, value)| (labels.clone(), value)).collect())
            }
        }
    }

    fn vector(&mut self) -> Vec<(Labels, f64)> {
        match self.binary(0) {
            Value::Vector(vector) => vector,
            Value::Scalar(number) => panic!("{number} is no vector"),
        }
    }

    /// A metric, and what its labels are to be: name, how it is compared, with what.
    fn selector(&mut self) -> Vec<[String; 3]> {
        let mut selects = vec![["__name__".to_owned(), "=".to_owned(), self.next()]];
        if self.peek() == "{" {
            self.at += 1;
            while self.peek() != "}" {
                let (name, how, value) = (self.next(), self.next(), self.next());
                selects.push([name, how, value.trim_matches('"').to_owned()]);
                if self.peek() == "," {
                    self.at += 1;
                }
            }
            self.take("}");
        }
        selects
    }
}

fn seconds(window: &str) -> f64 {
    let (number, unit) = window.split_at(window.len() - 1);
    let number: f64 = number.parse().unwrap();
    number
        * match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => panic!("{other}"),
        }
}

fn select<'a>(from: &'a [(Labels, f64)], selects: &'a [[String; 3]]) -> impl Iterator<Item = (&'a Labels, f64)> {
    from.iter().map(|(labels, value)| (labels, *value)).filter(|(labels, _)| {
        selects.iter().all(|[name, how, wanted]| {
            let is = labels.get(name).map_or("", String::as_str);
            match how.as_str() {
                "=" => is == wanted,
                "!=" => is != wanted,
                "=~" => wanted.split('|').any(|one| one == is),
                other => panic!("{other}"),
            }
        })
    })
}

fn apply(operator: &str, left: Value, right: Value, on: Option<&[String]>) -> Value {
    let compute = |left: f64, right: f64| match operator {
        "+" => Some(left + right),
        "-" => Some(left - right),
        "*" => Some(left * right),
        "/" => Some(left / right),
        "==" => (left == right).then_some(left),
        ">" => (left > right).then_some(left),
        "<" => (left < right).then_some(left),
        "and" => Some(left),
        other => panic!("{other}"),
    };
    // A comparison keeps what it is of; what is computed is no such metric any more.
    let named = |labels: Labels| if matches!(operator, "==" | ">" | "<" | "and") { labels } else { key(&labels, None) };
    let vector = match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => return Value::Scalar(compute(left, right).expect("a number")),
        (Value::Vector(left), Value::Scalar(right)) => {
            left.into_iter().filter_map(|(labels, left)| Some((named(labels), compute(left, right)?))).collect()
        }
        (Value::Scalar(left), Value::Vector(right)) => {
            right.into_iter().filter_map(|(labels, right)| Some((named(labels), compute(left, right)?))).collect()
        }
        (Value::Vector(left), Value::Vector(right)) => {
            let right: BTreeMap<Labels, f64> = right.iter().map(|(labels, value)| (key(labels, on), *value)).collect();
            let both = left.into_iter().filter_map(|(labels, left)| {
                let right = right.get(&key(&labels, on))?;
                Some((named(labels), compute(left, *right)?))
            });
            both.collect()
        }
    };
    Value::Vector(vector)
}

/// Of each histogram the value that so many of its observations are below, straight from bound to bound.
fn quantiles(quantile: f64, buckets: Vec<(Labels, f64)>) -> Vec<(Labels, f64)> {
    let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (mut labels, count) in buckets {
        let bound = labels.remove("le").expect("a histogram");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        histograms.entry(labels).or_default().push((bound, count));
    }
    let of = |(labels, mut buckets): (Labels, Vec<(f64, f64)>)| {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = buckets.last()?.1;
        let wanted = quantile * all;
        let at = buckets.iter().position(|(_, count)| *count >= wanted).filter(|_| all > 0.0)?;
        let (from, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (to, count) = buckets[at];
        let value = if to.is_infinite() { from } else { from + (to - from) * (wanted - below) / (count - below) };
        Some((labels, value))
    };
    histograms.into_iter().filter_map(of).collect()
}

#[test]
fn queries_are_answered_as_prometheus_answers_them() {
    let before = Scrape::of(
        "a_total{s=\"1\",o=\"ok\"} 10\na_total{s=\"1\",o=\"bad\"} 0\nf_bucket{s=\"1\",le=\"1\"} 0\nf_bucket{s=\"1\",le=\"2\"} 0\nf_bucket{s=\"1\",le=\"+Inf\"} 0\n",
    );
    let after = Scrape::of("# HELP a\na_total{s=\"1\",o=\"ok\"} 16\na_total{s=\"1\",o=\"bad\"} 2\na_total{s=\"2\",o=\"bad\"} 9\nf_bucket{s=\"1\",le=\"1\"} 0\nf_bucket{s=\"1\",le=\"2\"} 4\nf_bucket{s=\"1\",le=\"+Inf\"} 4\ng{s=\"1\"} 3\ng{s=\"2\"} 0\nh{s=\"1\"} 0\n").and_up(false);
    for (query, is) in [
        (r#"up{job="littoral"} == 0"#, true),
        (r#"up{job="other"} == 0"#, false),
        ("g > 2", true),
        ("g > 3", false),
        (r#"g{s!="1"} > 0"#, false),
        ("g > 0 and on (s) h == 0", true),
        ("g == 0 and on (s) h == 0", false),
        ("time() - g > 3 * 30", true),
        ("time() - g > 97", true),
        ("time() - g > 100", false),
        // One that was not there before has not grown.
        (r#"increase(a_total{o="bad"}[1h]) > 2"#, false),
        (r#"increase(a_total{o="bad"}[1h]) > 1"#, true),
        (r#"increase(a_total{o=~"ok|none"}[1h]) > 5"#, true),
        (r#"sum by (s) (rate(a_total{o="bad"}[15m])) / sum by (s) (rate(a_total[15m])) > 0.24"#, true),
        (r#"sum by (s) (rate(a_total{o="bad"}[15m])) / sum by (s) (rate(a_total[15m])) > 0.26"#, false),
        (
            r#"sum by (s) (increase(a_total{o="ok"}[1h])) / (sum by (s) (increase(a_total{o="bad"}[1h])) + sum by (s) (increase(a_total{o="ok"}[1h]))) > 0.74"#,
            true,
        ),
        ("histogram_quantile(0.5, sum by (s, le) (rate(f_bucket[1m]))) > 1.4", true),
        ("histogram_quantile(0.5, sum by (s, le) (rate(f_bucket[1m]))) > 1.6", false),
    ] {
        assert_eq!(holds(query, &before, &after, 100.0), is, "{query}");
    }
}
