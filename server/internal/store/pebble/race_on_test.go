//go:build race

package pebble

// raceDetector: everything takes many times as long.
const raceDetector = true
