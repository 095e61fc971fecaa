package main

import (
	"context"
	"errors"
	"io"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	conformancev1 "github.com/reprise-chat/reprise/server/internal/conformance/gen/connectrpc/conformance/v1"
)

// service answers as service.proto says.
type service struct {
	conformancev1.UnimplementedConformanceServiceServer
}

// Unary implements ConformanceService. Its headers go first, also before an
// error. Elsewhere an error that comes alone takes them along.
func (service) Unary(ctx context.Context, r *conformancev1.UnaryRequest) (*conformancev1.UnaryResponse, error) {
	if err := grpc.SendHeader(ctx, pairs(r.GetResponseDefinition().GetResponseHeaders())); err != nil {
		return nil, err
	}
	p, err := respond(ctx, r.GetResponseDefinition(), packed(r))
	if err != nil {
		return nil, err
	}
	return &conformancev1.UnaryResponse{Payload: p}, nil
}

// IdempotentUnary implements ConformanceService.
func (service) IdempotentUnary(ctx context.Context, r *conformancev1.IdempotentUnaryRequest) (*conformancev1.IdempotentUnaryResponse, error) {
	if err := grpc.SetHeader(ctx, pairs(r.GetResponseDefinition().GetResponseHeaders())); err != nil {
		return nil, err
	}
	p, err := respond(ctx, r.GetResponseDefinition(), packed(r))
	if err != nil {
		return nil, err
	}
	return &conformancev1.IdempotentUnaryResponse{Payload: p}, nil
}

// ClientStream implements ConformanceService.
func (service) ClientStream(s conformancev1.ConformanceService_ClientStreamServer) error {
	var def *conformancev1.UnaryResponseDefinition
	var requests []*anypb.Any
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if len(requests) == 0 {
			def = r.GetResponseDefinition()
		}
		requests = append(requests, packed(r)...)
	}
	if err := s.SetHeader(pairs(def.GetResponseHeaders())); err != nil {
		return err
	}
	p, err := respond(s.Context(), def, requests)
	if err != nil {
		return err
	}
	return s.SendAndClose(&conformancev1.ClientStreamResponse{Payload: p})
}

// ServerStream implements ConformanceService.
func (service) ServerStream(r *conformancev1.ServerStreamRequest, s conformancev1.ConformanceService_ServerStreamServer) error {
	def := r.GetResponseDefinition()
	if def == nil {
		return nil
	}
	if err := s.SendHeader(pairs(def.GetResponseHeaders())); err != nil {
		return err
	}
	s.SetTrailer(pairs(def.GetResponseTrailers()))
	info := requestInfo(s.Context(), packed(r))
	for i, data := range def.GetResponseData() {
		p := &conformancev1.ConformancePayload{Data: data}
		if i == 0 {
			p.RequestInfo = info
		}
		time.Sleep(time.Duration(def.GetResponseDelayMs()) * time.Millisecond)
		if err := s.Send(&conformancev1.ServerStreamResponse{Payload: p}); err != nil {
			return err
		}
	}
	return failure(def.GetError(), info, len(def.GetResponseData()) == 0)
}

// BidiStream implements ConformanceService.
func (service) BidiStream(s conformancev1.ConformanceService_BidiStreamServer) error {
	var def *conformancev1.StreamResponseDefinition
	var requests []*anypb.Any
	full, sent := false, 0
	send := func(info *conformancev1.ConformancePayload_RequestInfo) error {
		time.Sleep(time.Duration(def.GetResponseDelayMs()) * time.Millisecond)
		p := &conformancev1.ConformancePayload{Data: def.GetResponseData()[sent], RequestInfo: info}
		sent++
		return s.Send(&conformancev1.BidiStreamResponse{Payload: p})
	}
	for first := true; ; first = false {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		requests = append(requests, packed(r)...)
		if first {
			def, full = r.GetResponseDefinition(), r.GetFullDuplex()
			if err := announce(s, def, full); err != nil {
				return err
			}
		}
		if !full {
			continue
		}
		if sent >= len(def.GetResponseData()) {
			break
		}
		info := &conformancev1.ConformancePayload_RequestInfo{Requests: requests}
		if sent == 0 {
			info = requestInfo(s.Context(), requests)
		}
		requests = nil
		if err := send(info); err != nil {
			return err
		}
	}
	for sent < len(def.GetResponseData()) {
		var info *conformancev1.ConformancePayload_RequestInfo
		if sent == 0 {
			info = requestInfo(s.Context(), requests)
		}
		if err := send(info); err != nil {
			return err
		}
	}
	return failure(def.GetError(), requestInfo(s.Context(), requests), sent == 0)
}

// announce sets a stream's metadata. At half duplex nothing is written before
// the request has ended.
func announce(s conformancev1.ConformanceService_BidiStreamServer, def *conformancev1.StreamResponseDefinition, full bool) error {
	if def == nil {
		return nil
	}
	s.SetTrailer(pairs(def.GetResponseTrailers()))
	if full {
		return s.SendHeader(pairs(def.GetResponseHeaders()))
	}
	return s.SetHeader(pairs(def.GetResponseHeaders()))
}

// respond makes what has one answer. Its headers are the caller's.
func respond(ctx context.Context, def *conformancev1.UnaryResponseDefinition, requests []*anypb.Any) (*conformancev1.ConformancePayload, error) {
	info := requestInfo(ctx, requests)
	if err := grpc.SetTrailer(ctx, pairs(def.GetResponseTrailers())); err != nil {
		return nil, err
	}
	time.Sleep(time.Duration(def.GetResponseDelayMs()) * time.Millisecond)
	if err := failure(def.GetError(), info, true); err != nil {
		return nil, err
	}
	return &conformancev1.ConformancePayload{RequestInfo: info, Data: def.GetResponseData()}, nil
}

// failure is the error that was asked for; it says what was received if no
// answer does.
func failure(e *conformancev1.Error, info *conformancev1.ConformancePayload_RequestInfo, alone bool) error {
	if e == nil {
		return nil
	}
	s := &statuspb.Status{Code: int32(e.GetCode()), Message: e.GetMessage(), Details: e.GetDetails()}
	if alone {
		s.Details = append(s.Details, packed(info)...)
	}
	return status.ErrorProto(s)
}

func requestInfo(ctx context.Context, requests []*anypb.Any) *conformancev1.ConformancePayload_RequestInfo {
	info := &conformancev1.ConformancePayload_RequestInfo{Requests: requests}
	md, _ := metadata.FromIncomingContext(ctx)
	for name, values := range md {
		info.RequestHeaders = append(info.RequestHeaders, &conformancev1.Header{Name: name, Value: values})
	}
	if deadline, ok := ctx.Deadline(); ok {
		info.TimeoutMs = proto.Int64(time.Until(deadline).Milliseconds())
	}
	return info
}

func pairs(headers []*conformancev1.Header) metadata.MD {
	md := metadata.MD{}
	for _, h := range headers {
		md.Append(h.GetName(), h.GetValue()...)
	}
	return md
}

func packed(m proto.Message) []*anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(status.Error(codes.Internal, err.Error()))
	}
	return []*anypb.Any{a}
}
