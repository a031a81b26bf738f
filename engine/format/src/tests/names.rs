//! Object names and keys of rows, printed and parsed as pairs.

use super::chance::Chance;
use crate::keys::{self, Folder, ObjectKey, PinKey};
use crate::rows::keys as table;
use littoral_types::*;
use proptest::prelude::*;

fn any_key(chance: &mut Chance) -> ObjectKey {
    match chance.below(9) {
        0 => ObjectKey::Record(Seq(chance.number())),
        1 => ObjectKey::Snapshot(Seq(chance.number())),
        2 => ObjectKey::Blob(chance.blob_name()),
        3 => ObjectKey::Pin(PinKey::Id(PinId(chance.array()))),
        4 => ObjectKey::Pin(PinKey::Snapshot(chance.snapshot_name())),
        5 => ObjectKey::Head,
        6 => ObjectKey::Copy,
        7 => ObjectKey::Promoted,
        _ => ObjectKey::Probe(format!("{:x}", chance.bits())),
    }
}

proptest! {
    #[test]
    fn every_name_reads_back_what_it_prints(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let (volume, key) = (chance.volume_name(), any_key(&mut chance));
        let path = key.path(&volume);
        prop_assert_eq!(ObjectKey::parse(&path), Some((volume, key)));
        prop_assert_eq!(ObjectPath::parse(path.as_str()), Some(path));
    }

    #[test]
    fn a_name_is_parsed_only_as_it_is_printed(seed in any::<u64>(), at in any::<usize>(), put in "[0-9a-zA-Z./_-]") {
        let mut chance = Chance::new(seed);
        let path = any_key(&mut chance).path(&chance.volume_name());
        let mut text = path.as_str().to_owned();
        let at = at % text.len();
        text.replace_range(at..=at, &put);
        if let Some(path) = ObjectPath::parse(&text)
            && let Some((volume, key)) = ObjectKey::parse(&path)
        {
            prop_assert_eq!(key.path(&volume), path);
        }
    }

    #[test]
    fn keys_of_rows_order_as_their_numbers_do(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let volume = chance.volume_id();
        let (a, b) = (chance.number(), chance.number());
        let (c, d) = (chance.number(), chance.number());
        let page = |number: u64| PageNo::new(number.max(1)).unwrap();
        prop_assert_eq!(table::chunk(&volume, ChunkId(a)).cmp(&table::chunk(&volume, ChunkId(b))), a.cmp(&b));
        prop_assert_eq!(table::page(&volume, page(a)).cmp(&table::page(&volume, page(b))), page(a).cmp(&page(b)));
        prop_assert_eq!(table::change(ChangeSeq(a)).cmp(&table::change(ChangeSeq(b))), a.cmp(&b));
        prop_assert_eq!(
            table::delta(&volume, ChunkId(a), DeltaId(c)).cmp(&table::delta(&volume, ChunkId(b), DeltaId(d))),
            (a, c).cmp(&(b, d))
        );
        prop_assert_eq!(
            table::page_delta(&volume, page(a), DeltaId(c)).cmp(&table::page_delta(&volume, page(b), DeltaId(d))),
            (page(a), std::cmp::Reverse(c)).cmp(&(page(b), std::cmp::Reverse(d))),
            "a page's newest delta comes first"
        );
        prop_assert_eq!(
            table::parse_page_delta(&table::page_delta(&volume, page(a), DeltaId(c))), Ok((volume, page(a), DeltaId(c)))
        );
        let version = [None, Some(DeltaId(d))][(a % 2) as usize];
        let ends = [table::life_end(&volume, a, ChunkId(c), version), table::life_end(&volume, b, ChunkId(c), version)];
        prop_assert_eq!(ends[0].cmp(&ends[1]), a.cmp(&b), "a cut finds what reaches beyond it");
        prop_assert_eq!(table::parse_life_end(&ends[0]), Ok((volume, a, ChunkId(c), version)));
        prop_assert_eq!(
            table::parse_delta(&table::delta(&volume, ChunkId(a), DeltaId(c))), Ok((volume, ChunkId(a), DeltaId(c)))
        );
        prop_assert_eq!(table::parse_chunk(&table::chunk(&volume, ChunkId(a))), Ok((volume, ChunkId(a))));
        prop_assert_eq!(table::parse_page(&table::page(&volume, page(a))), Ok((volume, page(a))));
        prop_assert_eq!(table::parse_volume(&table::volume(&volume)), Ok(volume));
        prop_assert_eq!(table::parse_group(&table::group(&volume, a)), Ok((volume, a)));
        let input: [u8; 32] = chance.array();
        prop_assert_eq!(table::parse_staged(&table::staged(&volume, &input)), Ok((volume, input)));
        prop_assert_eq!(table::parse_change(&table::change(ChangeSeq(a))), Ok(ChangeSeq(a)));
        prop_assert_eq!(
            table::parse_change_of(&table::change_of(&volume, Seq(a), ChangeSeq(b))), Ok((volume, Seq(a), ChangeSeq(b)))
        );
    }
}

#[test]
fn the_newest_record_sorts_first() {
    let volume: VolumeName = "app.db".parse().unwrap();
    assert_eq!(keys::record(&volume, Seq(1)).as_str(), "app.db/log/fffffffffffffffe");
    assert_eq!(keys::snapshot(&volume, Seq(256)).as_str(), "app.db/snap/fffffffffffffeff");
    assert!(keys::record(&volume, Seq(2)) < keys::record(&volume, Seq(1)));
    assert_eq!(keys::head(&volume).as_str(), "app.db/head");
    let pin = PinKey::Snapshot("before-upgrade".parse().unwrap());
    assert_eq!(keys::pin(&volume, &pin).as_str(), "app.db/pins/snap-before-upgrade");
}

#[test]
fn every_object_lies_in_the_folder_that_is_listed_for_it() {
    let mut chance = Chance::new(3);
    for _ in 0..500 {
        let (volume, key) = (chance.volume_name(), any_key(&mut chance));
        let folder = match &key {
            ObjectKey::Record(_) => Folder::Log,
            ObjectKey::Snapshot(_) => Folder::Snapshots,
            ObjectKey::Blob(name) => Folder::Blobs(name.kind),
            ObjectKey::Pin(_) => Folder::Pins,
            ObjectKey::Head | ObjectKey::Copy | ObjectKey::Promoted => Folder::All,
            ObjectKey::Probe(_) => Folder::Probe,
        };
        for folder in [folder, Folder::All] {
            let folder = keys::folder(&volume, folder);
            assert!(key.path(&volume).as_str().starts_with(&format!("{folder}/")), "{key:?} is not in {folder}");
        }
    }
}

#[test]
fn what_is_not_ours_is_not_parsed() {
    let hash = "0".repeat(64);
    for path in [
        "app.db".to_owned(),
        "app.db/log".to_owned(),
        "app.db/log/fffffffffffffff".to_owned(),
        "app.db/log/FFFFFFFFFFFFFFFE".to_owned(),
        "app.db/log/fffffffffffffffe/x".to_owned(),
        "app.db/head/x".to_owned(),
        "app.db/heads".to_owned(),
        format!("app.db/chunk/{hash}"),
        format!("app.db/chunk/{hash}."),
        format!("app.db/chunk/{hash}.01"),
        format!("app.db/chunk/{hash}.-1"),
        format!("app.db/chunk/{hash}.18446744073709551616"),
        format!("app.db/chunks/{hash}.1"),
        "app.db/pins/snap-".to_owned(),
        "app.db/pins/snap-.hidden".to_owned(),
        "app.db/pins/00".to_owned(),
        "app.db/probe/xyz".to_owned(),
        ".hidden/head".to_owned(),
        "other.txt".to_owned(),
    ] {
        let parsed = ObjectPath::parse(&path).and_then(|path| ObjectKey::parse(&path));
        assert_eq!(parsed, None, "{path}");
    }
}
