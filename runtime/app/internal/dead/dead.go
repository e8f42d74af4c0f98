// Package dead holds the commands that list, show, replay, edit, discard and export
// dead letters. It knows contract.DeadLetters, and not the broker behind it.
package dead

// Command is 'rabbet dead'.
type Command struct {
	List    listCommand    `cmd:"" help:"Count dead letters by function and error, or list them one by one."`
	Show    showCommand    `cmd:"" help:"Show all of a dead letter."`
	Replay  replayCommand  `cmd:"" help:"Send dead letters to their functions again, starting at the first attempt."`
	Edit    editCommand    `cmd:"" help:"Change the body of a dead letter, and replay it."`
	Discard discardCommand `cmd:"" help:"Remove dead letters for good."`
	Export  exportCommand  `cmd:"" help:"Write dead letters as JSON Lines."`
}
