package program

import "strings"

// portTries is how often AnyPort looks for a port.
const portTries = 10

// AnyPort calls open, which opens several sockets with one port at an address. If the port is 0,
// the one that is found for the first socket may be taken for another: then it calls open again.
// An open that fails must leave nothing open.
func AnyPort(address string, open func() error) error {
	err := open()
	for tries := 1; err != nil && strings.HasSuffix(address, ":0") && tries < portTries; tries++ {
		err = open()
	}
	return err
}
