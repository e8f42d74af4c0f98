package contract

import (
	"slices"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func announce(worker string, started time.Time, version string) Announcement {
	return Announcement{Worker: worker, Started: started, Functions: []Descriptor{
		{Name: "f", Kind: KindRequest, Keys: []string{"key"}, Version: version},
	}}
}

func TestDirectoryFollowsWorkers(t *testing.T) {
	var d Directory
	want := func(version string, workers ...string) {
		t.Helper()
		f, known := d.Find("key")
		if !known || f.Version != version || !slices.Equal(f.Workers, workers) {
			t.Errorf("got %v (known %v) of version %s, want %v of %s", f.Workers, known, f.Version, workers, version)
		}
	}
	if _, known := d.Find("f"); known {
		t.Error("an empty directory knows f")
	}
	d.Update(announce("old", epoch, "1"), epoch)
	want("1", "old")
	d.Update(announce("new", epoch.Add(time.Minute), "2"), epoch)
	want("2", "new", "old")
	d.Update(announce("old", epoch, "1"), epoch.Add(AnnounceInterval)) // an old worker's voice changes nothing
	want("2", "new", "old")
	d.Expire(epoch.Add(AnnounceTimeout + time.Nanosecond)) // new has been silent since
	want("1", "old")                                       // as after a release that was rolled back
	d.Update(Announcement{Worker: "old", Leaving: true}, epoch)
	want("1")
}

func TestDirectoryForgetsWhatNobodyHosts(t *testing.T) {
	var d Directory
	d.Forget("f")
	d.Update(announce("w", epoch, "1"), epoch)
	d.Forget("f")
	if f, _ := d.Find("f"); len(f.Workers) != 1 {
		t.Errorf("got the workers %q of what was to be forgotten while it is hosted, want 1", f.Workers)
	}
	d.Update(Announcement{Worker: "w", Leaving: true}, epoch)
	changed := d.Changed()
	d.Forget("g")
	if _, known := d.Find("f"); !known {
		t.Error("f was forgotten with g")
	}
	d.Forget("f")
	if f, known := d.Find("f"); known {
		t.Errorf("got %+v, want it forgotten", f)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told that it was forgotten")
	}
}

// A key leads to the function that answers it now, whatever it was called before.
func TestDirectoryFindsWhatIsHosted(t *testing.T) {
	var d Directory
	for _, name := range []string{"b", "a", "c"} {
		d.Update(Announcement{Worker: name, Started: epoch, Functions: []Descriptor{{Name: name, Kind: KindRequest, Keys: []string{"key"}}}}, epoch)
		if f, _ := d.Find("key"); f.Name != name {
			t.Errorf("got %s, want %s", f.Name, name)
		}
		d.Update(Announcement{Worker: name, Leaving: true}, epoch)
		if _, known := d.Find("key"); !known {
			t.Errorf("nothing is known when %s has left", name)
		}
	}
}

func TestDirectoryTellsOfChangesOnly(t *testing.T) {
	var d Directory
	changed := d.Changed()
	d.Update(announce("w", epoch, "1"), epoch)
	select {
	case <-changed:
	default:
		t.Error("a new worker is no change")
	}
	changed = d.Changed()
	d.Update(announce("w", epoch, "1"), epoch.Add(time.Second))
	d.Expire(epoch.Add(time.Second))
	select {
	case <-changed:
		t.Error("hearing the same again is a change")
	default:
	}
	d.Update(Announcement{Worker: "w", Leaving: true}, epoch)
	select {
	case <-changed:
	default:
		t.Error("a leaving worker is no change")
	}
}

func TestDirectoryFindsByNameFirst(t *testing.T) {
	var d Directory
	d.Update(Announcement{Worker: "w", Functions: []Descriptor{
		{Name: "a", Kind: KindRequest, Keys: []string{"b"}},
		{Name: "b", Kind: KindRequest, Keys: []string{"a"}},
		{Name: "e", Kind: KindEvent, Keys: []string{"happened"}},
	}}, epoch)
	if f, _ := d.Find("b"); f.Name != "b" {
		t.Errorf("got %s, want b", f.Name)
	}
	if _, known := d.Find("happened"); known {
		t.Error("an event function was found by its key")
	}
}
